#include "cuda_on_cpu/banks.h"

#include <algorithm>
#include <array>
#include <map>
#include <tuple>

namespace uvit::cuda::emulator {
namespace {

constexpr int kBanks = 32;

struct Instruction {
  std::array<const void*, kLanes> address{};
  int bytes = 0;
  Site site;
};

using SiteKey = std::pair<const char*, std::uint_least32_t>;
std::map<std::tuple<SiteKey, int, int>, Instruction> recorded;  // by site, warp, turn
std::map<std::pair<SiteKey, int>, int> turns;                   // accesses of a thread at a site

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

void record_shared_access(const void* address, int bytes, const Site& site) {
  const Thread& self = *current_thread;
  const SiteKey key{site.file_name(), site.line()};
  const int turn = turns[{key, self.index}]++;
  Instruction& instruction = recorded[{key, self.warp, turn}];
  instruction.address[static_cast<std::size_t>(self.lane)] = address;
  instruction.bytes = bytes;
  instruction.site = site;
}

void count_recorded_accesses() {
  for (const auto& [key, instruction] : recorded) {
    const int at_once = kBanks * 4 / std::max(instruction.bytes, 4);
    for (int first = 0; first < kLanes; first += at_once) {
      const void* addresses[kLanes];
      int count = 0;
      for (int l = first; l < first + at_once; ++l)
        if (instruction.address[static_cast<std::size_t>(l)]) addresses[count++] = instruction.address[static_cast<std::size_t>(l)];
      if (count) count_wavefronts(addresses, count, instruction.bytes, instruction.site);
    }
  }
  recorded.clear();
  turns.clear();
}

}  // namespace uvit::cuda::emulator
