// The tile instructions as the tests emulate them, against Intel's description by hand; and their registration as an instruction set, through which
// every other test here runs the kernels written for AMX.
#define UVIT_ISA tile_test
#include "kernels/attention/cpu/isa/amx_emulated.h"

#include <catch2/catch.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/attention/cpu/attention_cpu.h"
#include "kernels/attention/cpu/plan.h"
#include "tests/kernels/attention_plain.h"

using uvit::kernels::TileFault;
using namespace uvit::kernels::tile_test;
using uvit::test::to_bf16;

CATCH_TRANSLATE_EXCEPTION(const TileFault& fault) { return std::string("tile instruction: ") + fault.why; }

namespace {

#ifdef UVIT_AMX_EMULATED
const bool kAdded = [] {
  uvit::kernels::add_attention_isa(uvit::kernels::kAmxBf16EmulatedKernels, [] {
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
  });
  return true;
}();
#endif

/// Tile 0: sums of 2 x 3, tile 1: a of 2 rows of `pairs`, tile 2: b of `pairs` lines of 3 columns.
TileConfig small_tiles(int pairs) {
  TileConfig config = {};
  config.palette = 1;
  config.rows[0] = config.rows[1] = 2;
  config.rows[2] = static_cast<std::uint8_t>(pairs);
  config.row_bytes[0] = config.row_bytes[2] = 12;
  config.row_bytes[1] = static_cast<std::uint16_t>(4 * pairs);
  return config;
}

float cell(float even, float odd) { return as_float(static_cast<std::uint32_t>(to_bf16(odd)) << 16 | to_bf16(even)); }

/// c + the sum of a_i b_i over the terms, which are taken two by two; computed in row 1, column 2.
float dot(std::vector<std::array<float, 2>> terms, float c = 0) {
  if (terms.size() % 2) terms.push_back({0, 0});
  const std::size_t pairs = terms.size() / 2;
  std::vector<float> a(2 * pairs), b(3 * pairs), sums(6);
  for (std::size_t k = 0; k < pairs; ++k) {
    a[pairs + k] = cell(terms[2 * k][0], terms[2 * k + 1][0]);
    b[3 * k + 2] = cell(terms[2 * k][1], terms[2 * k + 1][1]);
  }
  sums[5] = c;
  tile_config(small_tiles(static_cast<int>(pairs)));
  tile_load<0>(sums.data(), 3);
  tile_load<1>(a.data(), static_cast<std::int64_t>(pairs));
  tile_load<2>(b.data(), 3);
  tile_dot<0, 1, 2>();
  tile_store<0>(sums.data(), 3);
  tile_release();
  for (std::size_t i = 0; i < 3; ++i) CHECK(sums[i] == 0);  // row 0
  return sums[5];
}

}  // namespace

TEST_CASE("emulated tiles: a product by hand, and what lies beside it in memory") {
  const float a[] = {cell(1, 2), cell(3, 4), -9, cell(5, 6), cell(7, 8), -9};
  const float b[] = {cell(1, 10), cell(2, 20), cell(0, 0.5F), cell(3, 30), cell(4, 40), cell(-1, 0)};
  float c[] = {0, 100, 0, 77, 1000, 0, 0, 77};  // rows of 4, the last of them not the tile's
  tile_config(small_tiles(2));
  tile_load<0>(c, 4);
  tile_load<1>(a, 3);
  tile_load<2>(b, 3);
  tile_dot<0, 1, 2>();
  tile_store<0>(c, 4);
  // 1*1 + 2*10 + 3*3 + 4*30 = 150, ...
  const std::vector<float> expected = {150, 100 + 2 + 40 + 12 + 160, 1 - 3, 77, 1000 + 5 + 60 + 21 + 240, 10 + 120 + 28 + 320, 3 - 7, 77};
  CHECK(std::vector<float>(std::begin(c), std::end(c)) == expected);
  for (int row = 2; row < 16; ++row) CHECK(tile_state.cells[0][row][0] == 0);
  CHECK(tile_state.cells[0][0][3] == 0);
  tile_zero<0>();
  tile_store<0>(c, 4);
  CHECK(std::vector<float>(std::begin(c), std::end(c)) == std::vector<float>{0, 0, 0, 77, 0, 0, 0, 77});
  tile_release();
}

TEST_CASE("emulated tiles: order of the sum, rounding, denormals, NaN") {
  const float big = std::ldexp(1.0F, 24);  // neighbours: 2 apart above, 1 below
  // Even places 2^24 + 1 -> 2^24; odd places 1 + 1 = 2. One after the other they would give 2^24.
  CHECK(dot({{big, 1}, {1, 1}, {1, 1}, {1, 1}}) == big + 2);
  // The products are summed before the destination is added: 1 + 1 + 2^24, not (2^24 + 1) + 1.
  CHECK(dot({{1, 1}, {1, 1}}, big) == big + 2);
  CHECK(dot({{1, 1}}, big) == big);      // ties to even, downwards
  CHECK(dot({{3, 1}}, big) == big + 4);  // and upwards
  CHECK(dot({{std::ldexp(1.0F, -130), std::ldexp(1.0F, 20)}}) == 0);  // an operand
  CHECK(dot({{std::ldexp(1.0F, -70), std::ldexp(-1.0F, -70)}}) == 0);  // a result
  CHECK(dot({{1, 0}}, std::ldexp(1.0F, -140)) == 0);                   // the destination
  CHECK(dot({{std::ldexp(1.0F, -63), std::ldexp(-1.0F, -63)}}) == std::ldexp(-1.0F, -126));
  CHECK(std::isnan(dot({{std::nanf(""), 0}, {1, 1}})));
  CHECK(dot({{INFINITY, 2}, {1, 1}}) == INFINITY);
}

TEST_CASE("emulated tiles: what a processor refuses is a fault") {
  const auto config_fault = [](auto change) {
    TileConfig config = small_tiles(2);
    change(config);
    tile_release();
    try {
      tile_config(config);
    } catch (const TileFault&) {
      return true;
    }
    return false;
  };
  CHECK_FALSE(config_fault([](TileConfig&) {}));
  CHECK(config_fault([](TileConfig& c) { c.palette = 2; }));
  CHECK(config_fault([](TileConfig& c) { c.start_row = 1; }));
  CHECK(config_fault([](TileConfig& c) { c.reserved[13] = 1; }));
  CHECK(config_fault([](TileConfig& c) { c.rows[0] = 17; }));
  CHECK(config_fault([](TileConfig& c) { c.row_bytes[2] = 68; }));
  CHECK(config_fault([](TileConfig& c) { c.rows[7] = 1; }));
  CHECK(config_fault([](TileConfig& c) { c.rows[8] = 1, c.row_bytes[8] = 4; }));

  float memory[16 * 16] = {};
  const auto dot_fault = [&](auto change) {
    TileConfig config = small_tiles(2);
    change(config);
    tile_config(config);
    try {
      tile_load<1>(memory, 16);
      tile_dot<0, 1, 2>();
    } catch (const TileFault&) {
      return true;
    }
    return false;
  };
  CHECK_FALSE(dot_fault([](TileConfig&) {}));
  CHECK(dot_fault([](TileConfig& c) { c.palette = 0; }));
  CHECK(dot_fault([](TileConfig& c) { c.rows[1] = c.row_bytes[1] = 0; }));
  CHECK(dot_fault([](TileConfig& c) { c.rows[0] = 3; }));
  CHECK(dot_fault([](TileConfig& c) { c.rows[2] = 3; }));
  CHECK(dot_fault([](TileConfig& c) { c.row_bytes[2] = 16; }));
  CHECK(dot_fault([](TileConfig& c) { c.row_bytes[1] = 6; }));
  tile_config(small_tiles(2));
  CHECK_THROWS_AS((tile_dot<0, 1, 1>()), TileFault);
  tile_release();
  CHECK_THROWS_AS(tile_zero<0>(), TileFault);
  CHECK_THROWS_AS(tile_store<0>(memory, 16), TileFault);
}

#ifdef UVIT_AMX_EMULATED
TEST_CASE("emulated tiles: an instruction set of the tests, never the default") {
  REQUIRE(kAdded);
  const std::vector<std::string> names = uvit::kernels::attention_isas_available();
  const bool runs = __builtin_cpu_supports("avx512bf16");
  CHECK((std::find(names.begin(), names.end(), "amx_bf16_emulated") != names.end()) == runs);
  CHECK(names.back() != "amx_bf16_emulated");
}
#endif
