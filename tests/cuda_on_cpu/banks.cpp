#include "cuda_on_cpu/banks.h"

#include <algorithm>
#include <array>
#include <map>
#include <tuple>

namespace uvit::cuda::emulator {
namespace {

constexpr int kBanks = 32;

struct WarpAccess {
  std::array<const void*, kLanes> address{};
  int bytes = 0;
  Site site;
};

std::map<std::tuple<Instruction, int, int>, WarpAccess> recorded;  // by instruction, warp, turn
std::map<std::pair<Instruction, int>, int> turns;                  // accesses of a thread so far

}  // namespace

void count_wavefronts(const void* const* addresses, int count, int bytes, const Site& site) {
  std::array<std::uintptr_t, kLanes * 4> words;
  std::size_t n = 0;
  for (int i = 0; i < count; ++i)
    for (int b = 0; b < bytes; b += 4) words[n++] = (reinterpret_cast<std::uintptr_t>(addresses[i]) + static_cast<std::uintptr_t>(b)) / 4;
  std::sort(words.begin(), words.begin() + n);
  n = static_cast<std::size_t>(std::unique(words.begin(), words.begin() + n) - words.begin());  // lanes that read one word share it
  std::array<std::uint64_t, kBanks> in_bank{};
  for (std::size_t i = 0; i < n; ++i) ++in_bank[words[i] % kBanks];
  const std::uint64_t passes = *std::max_element(in_bank.begin(), in_bank.end()), least = (n + kBanks - 1) / kBanks;
  active_counters.shared_wavefronts += passes;
  if (passes > least) {
    active_counters.bank_conflicts += passes - least;
    active_counters.conflicts_by_site[site_name(site)] += passes - least;
  }
}

void record_shared_access(const void* address, int bytes, const Instruction& instruction, const Site& site) {
  const Thread& self = *current_thread;
  const int turn = turns[{instruction, self.index}]++;
  WarpAccess& access = recorded[{instruction, self.warp, turn}];
  access.address[static_cast<std::size_t>(self.lane)] = address;
  access.bytes = bytes;
  access.site = site;
}

void count_recorded_accesses() {
  for (const auto& [key, access] : recorded) {
    const int at_once = kBanks * 4 / std::max(access.bytes, 4);
    for (int first = 0; first < kLanes; first += at_once) {
      const void* addresses[kLanes];
      int count = 0;
      for (int l = first; l < first + at_once; ++l)
        if (access.address[static_cast<std::size_t>(l)]) addresses[count++] = access.address[static_cast<std::size_t>(l)];
      if (count) count_wavefronts(addresses, count, access.bytes, access.site);
    }
  }
  forget_recorded_accesses();
}

void forget_recorded_accesses() {
  recorded.clear();
  turns.clear();
}

}  // namespace uvit::cuda::emulator
