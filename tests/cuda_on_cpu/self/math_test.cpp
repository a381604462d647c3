// The emulator's own tests: conversions against the compiler's own half precision, approximations against their stated errors.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "kernels/cuda/arch.cuh"

namespace uvit::cuda {
namespace {

using arch::bf16;
using arch::f16;

TEST_CASE("CUDA emulator: f16 is the compiler's _Float16", "[cuda]") {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float expected = static_cast<float>(std::bit_cast<_Float16>(static_cast<std::uint16_t>(bits)));
    const float x = arch::to_float(f16{static_cast<std::uint16_t>(bits)});
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(x));
      REQUIRE(std::isnan(arch::to_float(arch::from_float<f16>(x))));
      continue;
    }
    REQUIRE(std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(expected));
    REQUIRE(arch::from_float<f16>(x).bits == bits);
  }
  std::uint32_t random = 1;
  for (int i = 0; i < 200000; ++i) {
    random = random * 1664525u + 1013904223u;
    const float x = std::bit_cast<float>((random & 0x8fffffffu) | 0x30000000u);  // 2^-31 to 2^0 and on, by sign
    REQUIRE(arch::from_float<f16>(x).bits == std::bit_cast<std::uint16_t>(static_cast<_Float16>(x)));
    const float y = static_cast<float>(static_cast<std::int32_t>(random) / 20000);
    REQUIRE(arch::from_float<f16>(y).bits == std::bit_cast<std::uint16_t>(static_cast<_Float16>(y)));
  }
}

TEST_CASE("CUDA emulator: bf16 rounds to nearest, ties to even", "[cuda]") {
  const auto rounded = [](float x) { return arch::to_float(arch::from_float<bf16>(x)); };
  CHECK(rounded(1 + 0x1p-8f) == 1);                            // a tie: the even one is below
  CHECK(rounded(1 + 3 * 0x1p-8f) == 1 + 0x1p-6f);              // a tie: the even one is above
  CHECK(rounded(1 + 0x1p-8f + 0x1p-20f) == 1 + 0x1p-7f);       // beyond the tie
  CHECK(rounded(-1 - 0x1p-8f) == -1);
  CHECK(rounded(std::numeric_limits<float>::max()) == INFINITY);
  CHECK(rounded(-INFINITY) == -INFINITY);
  CHECK(std::isnan(rounded(NAN)));
  CHECK(arch::from_float<bf16>(0x1p-149f).bits == 0);
  CHECK(arch::pack2<bf16>(1, -2) == 0xc0003f80u);
  CHECK(arch::pack2<f16>(1, -2) == 0xc0003c00u);
  CHECK(arch::unpack2<f16>(0xc0003c00u).lo == 1);
  CHECK(arch::unpack2<bf16>(0xc0003f80u).hi == -2);
}

TEST_CASE("CUDA emulator: fast functions are off, and by no more than the PTX ISA allows", "[cuda]") {
  double exp2_error = 0, reciprocal_error = 0, rsqrt_error = 0;
  for (int i = 1; i < 20000; ++i) {
    const float x = static_cast<float>(i) * 0.00497f;
    exp2_error = std::fmax(exp2_error, std::fabs(arch::exp2_fast(-x) / std::exp2(-static_cast<double>(x)) - 1));
    reciprocal_error = std::fmax(reciprocal_error, std::fabs(arch::reciprocal_fast(x) * static_cast<double>(x) - 1));
    rsqrt_error = std::fmax(rsqrt_error, std::fabs(arch::rsqrt_fast(x) * std::sqrt(static_cast<double>(x)) - 1));
  }
  const double half_ulp = 0x1p-24;
  CHECK(exp2_error > 0x1p-23);
  CHECK(exp2_error < 0x1p-22 + 2 * half_ulp);
  CHECK(reciprocal_error > 0x1p-24);
  CHECK(reciprocal_error < 0x1p-23 + 2 * half_ulp);
  CHECK(rsqrt_error > 0x1p-24);
  CHECK(rsqrt_error < 0x1p-23 + 2 * half_ulp);
  CHECK(arch::exp2_fast(-INFINITY) == 0);
  CHECK(arch::exp2_fast(-127) == 0);  // subnormal: flushed
  CHECK(arch::exp2_fast(0) == 1);
  CHECK(std::isnan(arch::exp2_fast(NAN)));
  CHECK(arch::exp2_fast(128) == INFINITY);
  CHECK(arch::log2_fast(0) == -INFINITY);
  CHECK(arch::log2_fast(8) == Approx(3).epsilon(0x1p-21));
  CHECK(arch::tanh_fast(0.5f) == Approx(std::tanh(0.5)).epsilon(0x1p-10));
  CHECK(arch::masked(3, true) == 3);
}

}  // namespace
}  // namespace uvit::cuda
