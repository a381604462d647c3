// The race checker's own tests: each race is found, and the same kernel with its barrier passes.
#include <catch2/catch.hpp>

#include "cuda_on_cpu/emulator.h"
#include "cuda_on_cpu/self/kernels.h"

namespace uvit::cuda::self {
namespace {

using Catch::Matchers::Contains;
using emulator::Buffer;

struct Expectation {
  Race race;
  const char* text;  ///< null: no race
};

const Expectation expectations[] = {
    {Race::write_then_read, "no barrier between the two"},
    {Race::write_then_read_barrier, nullptr},
    {Race::read_then_write, "no barrier between the two"},
    {Race::read_then_write_barrier, nullptr},
    {Race::write_then_write, "overwrites what another thread wrote"},
    {Race::in_warp, "no barrier between the two"},
    {Race::in_warp_sync_warp, nullptr},
    {Race::in_warp_shuffle, "no barrier between the two"},
    {Race::sync_warp_between_warps, "no barrier between the two"},
    {Race::copy_without_barrier, "shared memory"},  // before or after its arrival
    {Race::copy_with_barrier, nullptr},
    {Race::copy_over_reads, "shared memory"},
    {Race::copy_read_early, "a wait is missing"},
    {Race::unwritten_shared, "which nothing has written"},
    {Race::global_between_warps, "of values"},
    {Race::global_between_warps_barrier, nullptr},
    {Race::global_between_blocks, "overwrites what another block wrote"},
    {Race::global_read_by_blocks, nullptr},
    {Race::global_write_read_blocks, "another block"},
    {Race::misaligned, "the address is no multiple of 4"},
    {Race::past_shared_plain, "past the end of shared memory (1000 bytes)"},
};

TEST_CASE("CUDA race checker: a race is found in every schedule, and a barrier ends it", "[cuda][races]") {
  Buffer<float> values("values", 64 * 4 + 4);
  for (std::uint32_t seed = 0; seed < 6; ++seed)
    for (const Expectation& expected : expectations) {
      INFO("race " << static_cast<int>(expected.race) << ", seed " << seed);
      emulator::Settings settings;
      settings.seed = seed;
      emulator::Scope scope(settings);
      // Between launches of one stream everything is ordered, so the same buffer serves all.
      if (expected.text)
        CHECK_THROWS_WITH(race(expected.race, values.data()), Contains(expected.text) && Contains("race, block ("));
      else
        CHECK_NOTHROW(race(expected.race, values.data()));
    }
}

TEST_CASE("CUDA race checker: plain accesses count for bank conflicts", "[cuda][races]") {
  emulator::Scope scope({});
  ldmatrix_stride(128);  // four plain stores of 4 bytes by 32 lanes on one bank, then ldmatrix
  CHECK(scope.counters().bank_conflicts == 4 * 31 + 28);
}

}  // namespace
}  // namespace uvit::cuda::self
