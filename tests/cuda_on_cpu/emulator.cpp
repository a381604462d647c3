#include "cuda_on_cpu/emulator.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "cuda_on_cpu/block.h"

namespace uvit::cuda::emulator {

Scope::Scope(const Settings& new_settings) : old_settings_(active_settings), old_counters_(active_counters) {
  active_settings = new_settings;
  active_counters = Counters();
}
Scope::~Scope() {
  active_settings = old_settings_;
  active_counters = old_counters_;
}
const Counters& Scope::counters() const { return active_counters; }

std::string site_name(const Site& site) {
  if (site.line() == 0) return "its beginning";
  std::string_view file = site.file_name();
  const std::size_t slash = file.rfind('/');
  if (slash != std::string_view::npos) file.remove_prefix(slash + 1);
  return fmt::format("{}:{}", file, site.line());
}

const char* operation_name(Operation operation) {
  constexpr const char* names[] = {"nothing", "a shuffle", "a vote", "an mma", "ldmatrix", "sync_warp", "sync_block"};
  return names[static_cast<int>(operation)];
}

const char* fault_name(FaultKind kind) {
  constexpr const char* names[] = {"none",           "skip_wait",        "skip_sync_block",  "skip_sync_warp", "skip_mask",
                                   "ignore_valid",   "swap_a_registers", "swap_b_registers", "swap_c_registers",
                                   "swap_loaded",    "transpose_loaded", "shuffle_wrong_lane", "past_shared"};
  return names[static_cast<int>(kind)];
}

bool is_faulty(FaultKind kind, const Site& site) {
  if (active_settings.record_sites) {
    std::string name = site_name(site);
    const bool known = std::any_of(active_counters.fault_sites.begin(), active_counters.fault_sites.end(),
                                   [&](const FaultSite& s) { return s.kind == kind && s.site == name; });
    if (!known) active_counters.fault_sites.push_back({kind, std::move(name)});
  }
  return active_settings.fault.kind == kind && active_settings.fault.site == site_name(site);
}

void fail(const std::string& message) {
  const Thread* thread = current_thread;
  std::string text = fmt::format("{}, block ({}, {}, {})", block->kernel, block->index[0], block->index[1], block->index[2]);
  if (thread) text += fmt::format(", thread {} at {}", thread->index, site_name(thread->site));
  text += ": " + message;
  if (!thread) throw EmulationError(text);
  block->error = text;
  throw FiberFailed();
}

}  // namespace uvit::cuda::emulator
