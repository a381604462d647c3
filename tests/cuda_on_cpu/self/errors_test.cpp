// The emulator's own tests: what a kernel must not do ends in an error that says where.
#include <catch2/catch.hpp>

#include "cuda_on_cpu/emulator.h"
#include "cuda_on_cpu/self/kernels.h"

namespace uvit::cuda::self {
namespace {

using Catch::Matchers::Contains;
using emulator::Buffer;
using emulator::EmulationError;

struct Expectation {
  Wrong wrong;
  const char* text;
};

const Expectation expectations[] = {
    {Wrong::barrier_by_half, "deadlock: from thread 0 on: in sync_block at kernels.cpp:"},
    {Wrong::diverging_barrier, "deadlock: from thread 0 on: in sync_block"},
    {Wrong::diverging_lines, "lanes of one warp diverge"},
    {Wrong::lane_has_ended, "a shuffle: lane 3 has ended"},
    {Wrong::barrier_after_end, "from thread 63 on: ended"},
    {Wrong::pending_at_end, "ends while copies of cp_async_16 are under way"},
    {Wrong::shuffle_lane_32, "a shuffle names lane 32"},
    {Wrong::ldmatrix_past_shared, "reads 16 bytes of shared memory at 0 bytes past the end of shared memory (1024 bytes)"},
    {Wrong::ldmatrix_misaligned, "the address is no multiple of 16"},
    {Wrong::copy_past_shared, "writes 16 bytes of shared memory at 0 bytes past the end of shared memory"},
    {Wrong::copy_from_past_global, "reads 16 bytes of global memory at 0 bytes past the end of values (400 bytes)"},
    {Wrong::copy_misaligned, "reads 16 bytes at byte 4 of values (400 bytes): the address is no multiple of 16"},
    {Wrong::load_past_global, "reads 8 bytes of global memory at byte 396 of values (400 bytes)"},
    {Wrong::load_misaligned, "byte 8 of values (400 bytes): the address is no multiple of 16"},
    {Wrong::store_before_shared, "writes 4 bytes of shared memory at 4 bytes before shared memory"},
    {Wrong::plain_read_past_global, "0 bytes past the end of values (400 bytes)"},
    {Wrong::plain_write_past_shared, "0 bytes past the end of shared memory (1024 bytes)"},
    {Wrong::endless_recursion, "stack of this thread is too small"},
};

TEST_CASE("CUDA emulator: what a kernel must not do is found and named", "[cuda][races]") {
  Buffer<float> values("values", 100);
  for (std::uint32_t seed : {0u, 1u, 2u})
    for (const Expectation& expected : expectations) {
      INFO(expected.text << ", seed " << seed);
      emulator::Settings settings;
      settings.seed = seed;
      emulator::Scope scope(settings);
      if (expected.wrong == Wrong::diverging_barrier) {
        // Which of the two is met first is the schedule's choice.
        CHECK_THROWS_AS(do_wrong(expected.wrong, values.data(), 100), EmulationError);
      } else {
        CHECK_THROWS_WITH(do_wrong(expected.wrong, values.data(), 100), Contains(expected.text) && Contains("wrong, block (0, 0, 0)"));
      }
      // And the emulator works on.
      Buffer<int> numbers("numbers", 12 * 64 * 5);
      CHECK_NOTHROW(number_threads(numbers.data()));
    }
}

TEST_CASE("CUDA emulator: an error names thread and source line", "[cuda]") {
  Buffer<float> values("values", 100);
  CHECK_THROWS_WITH(do_wrong(Wrong::load_misaligned, values.data(), 100), Contains("thread 0 at kernels.cpp:"));
  CHECK_THROWS_WITH(do_wrong(Wrong::ldmatrix_past_shared, values.data(), 100), Contains("thread 31 at kernels.cpp:"));  // the lane whose row it is
}

TEST_CASE("CUDA emulator: launches that no GPU takes", "[cuda]") {
  const auto nothing = [] {};
  const int grid[3] = {1, 1, 1}, wide[3] = {1, 65536, 1};
  CHECK_THROWS_WITH(emulator::run_grid("k", grid, 33, 0, nothing), Contains("k: 33 threads a block"));
  CHECK_THROWS_AS(emulator::run_grid("k", grid, 2048, 0, nothing), EmulationError);
  CHECK_THROWS_WITH(emulator::run_grid("k", grid, 32, 228 * 1024, nothing), Contains("233472 bytes of shared memory"));
  CHECK_THROWS_WITH(emulator::run_grid("k", wide, 32, 0, nothing), Contains("grid dimension 1 is 65536"));
  CHECK_THROWS_WITH(emulator::run_grid("k", grid, 32, 0, [&] { emulator::run_grid("inner", grid, 32, 0, nothing); }), Contains("thread 0") && Contains("launches inner"));
}

TEST_CASE("CUDA emulator: a seeded fault breaks the call it names and no other", "[cuda]") {
  Buffer<bf16> a("a", 256), b("b", 128);
  Buffer<float> c("c", 128);
  for (int i = 0; i < 256; ++i) a[static_cast<std::size_t>(i)] = arch::from_float<bf16>(static_cast<float>(i % 7 - 3));
  for (int i = 0; i < 128; ++i) b[static_cast<std::size_t>(i)] = arch::from_float<bf16>(static_cast<float>((2 * (i / 16) + i % 16) % 5 - 2));
  emulator::Settings recording;
  recording.record_sites = true;
  std::vector<emulator::FaultSite> sites;
  {
    emulator::Scope scope(recording);
    multiply(a.data(), b.data(), c.data());
    sites = scope.counters().fault_sites;
  }
  const std::vector<float> good = c.values();
  using emulator::FaultKind;
  std::vector<FaultKind> kinds;
  for (const emulator::FaultSite& site : sites) {
    kinds.push_back(site.kind);
    INFO(fault_name(site.kind) << " at " << site.site);
    emulator::Settings settings;
    settings.fault = {site.kind, site.site};
    emulator::Scope scope(settings);
    bool found = false;
    try {
      multiply(a.data(), b.data(), c.data());
      for (std::size_t i = 0; i < 128; ++i) found = found || !(c[i] == good[i]);
    } catch (const EmulationError&) {
      found = true;
    }
    // Without a race checker the run goes on when sync_warp is left out; all copies are valid; the accumulators are all 0.
    const bool harmless = site.kind == FaultKind::skip_sync_warp || site.kind == FaultKind::ignore_valid || site.kind == FaultKind::swap_c_registers;
    CHECK((found || harmless));
    settings.fault.site = "kernels.cpp:1";
    emulator::Scope elsewhere(settings);
    multiply(a.data(), b.data(), c.data());
    CHECK(c.values() == good);
  }
  for (FaultKind kind : {FaultKind::skip_wait, FaultKind::skip_sync_warp, FaultKind::swap_a_registers, FaultKind::swap_b_registers, FaultKind::swap_loaded,
                         FaultKind::transpose_loaded, FaultKind::past_shared})
    CHECK(std::count(kinds.begin(), kinds.end(), kind) >= 1);
}

}  // namespace
}  // namespace uvit::cuda::self
