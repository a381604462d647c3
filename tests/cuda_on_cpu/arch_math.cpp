// Conversions and approximate functions.
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cuda/arch.cuh"

namespace uvit::cuda {
namespace emulator {

std::uint16_t round_to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return 0x7fff;
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

std::uint16_t round_to_f16(float x) {
  const auto sign = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16 & 0x8000);
  if (std::isnan(x)) return 0x7fff;
  const float magnitude = std::fabs(x);
  if (magnitude >= 65520.0f) return static_cast<std::uint16_t>(sign | 0x7c00);  // half way from the largest number to the next: infinity
  if (magnitude < 0x1p-14f)  // subnormal: a multiple of 2^-24; 1024 of them are the smallest normal number, whose bits are 0x0400
    return static_cast<std::uint16_t>(sign | static_cast<std::uint16_t>(std::nearbyint(magnitude * 0x1p24f)));
  const auto bits = std::bit_cast<std::uint32_t>(magnitude);
  const std::uint32_t rounded = bits + 0xfff + (bits >> 13 & 1);
  return static_cast<std::uint16_t>(sign | (rounded - (112u << 23)) >> 13);
}

float f16_to_float(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  if (exponent == 0) return std::copysign(static_cast<float>(fraction) * 0x1p-24f, std::bit_cast<float>(sign | 0x3f800000u));
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

namespace {

/// x with a relative error of up to `error`, up or down by the bits of the argument. 0, infinities and NaN stay; subnormal numbers become 0.
float approximate(float x, float argument, float error) {
  if (std::fabs(x) < std::numeric_limits<float>::min()) return std::copysign(0.0f, x);
  if (!std::isfinite(x)) return x;
  const std::uint32_t hash = std::bit_cast<std::uint32_t>(argument) * 2654435761u >> 30;
  return x * (1 + error * (static_cast<float>(hash) / 1.5f - 1));
}

}  // namespace
}  // namespace emulator

namespace arch {

using emulator::approximate;

std::uint32_t to_tf32(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return std::isfinite(x) ? (bits + 0x1000) & 0xffffe000u : bits;
}
float exp2_fast(float x) { return x == 0 ? 1.0f : approximate(std::exp2(x), x, 0x1p-22f); }
float log2_fast(float x) { return x == 1 ? 0.0f : std::fabs(x) < std::numeric_limits<float>::min() ? -INFINITY : approximate(std::log2(x), x, 0x1p-22f); }
float reciprocal_fast(float x) { return approximate(1 / x, x, 0x1p-23f); }
float rsqrt_fast(float x) { return approximate(static_cast<float>(1 / std::sqrt(static_cast<double>(x))), x, 0x1p-23f); }
float tanh_fast(float x) { return approximate(std::tanh(x), x, 0x1p-11f); }

}  // namespace arch
}  // namespace uvit::cuda
