#include "core/random.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <stdexcept>
#include <utility>

namespace uvit {
namespace {

std::uint64_t mix(std::uint64_t x) {  // the finaliser of SplitMix64 (Steele, Lea, Flood 2014)
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

// log, sin and cos are written out with +, *, / alone, so that a value is the same with every C library. Errors stay below 1e-10.

/// Natural logarithm of u in (0, 1): exponent apart, then log m = 2 atanh((m - 1) / (m + 1)), m in [1/sqrt2, sqrt2).
inline double log_of(double u) {
  constexpr std::uint64_t kSqrtHalf = std::bit_cast<std::uint64_t>(std::numbers::sqrt2 / 2);
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(u);
  const auto exponent = static_cast<std::int64_t>(bits - kSqrtHalf) >> 52;
  const double m = std::bit_cast<double>(bits - (static_cast<std::uint64_t>(exponent) << 52));
  const double s = (m - 1) / (m + 1), z = s * s;
  const double series = 1 + z * (1.0 / 3 + z * (1.0 / 5 + z * (1.0 / 7 + z * (1.0 / 9 + z * (1.0 / 11 + z * (1.0 / 13))))));
  return static_cast<double>(exponent) * std::numbers::ln2 + 2 * s * series;
}

inline double sin_near_zero(double x) {  // |x| <= pi / 4
  const double z = x * x;
  return x * (1 - z * (1.0 / 6) * (1 - z * (1.0 / 20) * (1 - z * (1.0 / 42) * (1 - z * (1.0 / 72) * (1 - z * (1.0 / 110))))));
}

inline double cos_near_zero(double x) {
  const double z = x * x;
  return 1 - z * (1.0 / 2) * (1 - z * (1.0 / 12) * (1 - z * (1.0 / 30) * (1 - z * (1.0 / 56) * (1 - z * (1.0 / 90) * (1 - z * (1.0 / 132))))));
}

/// Box-Muller: two independent standard normal values from two words. The angle is q pi / 2 + x, q the upper two bits of `b`, x in (-pi/4, pi/4).
inline std::array<double, 2> normal_pair(std::uint32_t a, std::uint32_t b) {
  const double radius = std::sqrt(-2 * log_of((a + 0.5) * 0x1p-32));
  const double x = (((b & 0x3FFFFFFF) + 0.5) * 0x1p-30 - 0.5) * (std::numbers::pi / 2);
  const std::uint32_t q = b >> 30;
  // Turning by q quarters with masks on the bits: a branch would be mispredicted every second time.
  const auto c = std::bit_cast<std::uint64_t>(radius * cos_near_zero(x)), s = std::bit_cast<std::uint64_t>(radius * sin_near_zero(x));
  const std::uint64_t swap = (c ^ s) & (std::uint64_t{0} - (q & 1));
  const std::uint64_t sign_across = std::uint64_t{(q ^ (q >> 1)) & 1} << 63, sign_along = std::uint64_t{q >> 1} << 63;
  return {std::bit_cast<double>(c ^ swap ^ sign_across), std::bit_cast<double>(s ^ swap ^ sign_along)};
}

void check_length(std::size_t n) {
  constexpr std::size_t kMost = std::size_t{1} << 34;  // the block number has 32 bits, a block has four words
  if (n > kMost) throw std::length_error("a random stream has 2^34 values");
}

}  // namespace

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * counter[0], p1 = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(p0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

std::uint64_t hash_name(std::string_view name) {
  std::uint64_t hash = 0xCBF29CE484222325;
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  return hash;
}

RandomStream::RandomStream(std::uint64_t seed, RandomPurpose purpose, std::uint64_t index, std::uint32_t step) : step_(step), index_(index) {
  const std::uint64_t key = mix(mix(seed) ^ static_cast<std::uint64_t>(purpose));
  key_ = {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)};
}

std::array<std::uint32_t, 4> RandomStream::block(std::uint32_t b) const {
  return philox4x32({b, step_, static_cast<std::uint32_t>(index_), static_cast<std::uint32_t>(index_ >> 32)}, key_);
}

std::uint64_t RandomStream::bits(std::uint32_t i) const {
  const std::array<std::uint32_t, 4> words = block(i / 2);
  return (i & 1) ? words[2] | std::uint64_t{words[3]} << 32 : words[0] | std::uint64_t{words[1]} << 32;
}

double RandomStream::uniform(std::uint32_t i) const { return static_cast<double>(bits(i) >> 11) * 0x1p-53; }

void RandomStream::fill_normal(std::span<float> out) const {
  check_length(out.size());
  for (std::size_t i = 0; i < out.size(); i += 4) {
    const std::array<std::uint32_t, 4> words = block(static_cast<std::uint32_t>(i / 4));
    const std::array<double, 2> first = normal_pair(words[0], words[1]), second = normal_pair(words[2], words[3]);
    const std::array<double, 4> values = {first[0], first[1], second[0], second[1]};
    for (std::size_t j = 0; j < 4 && i + j < out.size(); ++j) out[i + j] = static_cast<float>(values[j]);
  }
}

void RandomStream::fill_uniform(std::span<float> out, float low, float high) const {
  check_length(out.size());
  const double width = static_cast<double>(high) - low;
  const float largest = high > low ? std::nextafter(high, low) : low;  // rounding to float must not reach `high`
  for (std::size_t i = 0; i < out.size(); i += 4) {
    const std::array<std::uint32_t, 4> words = block(static_cast<std::uint32_t>(i / 4));
    for (std::size_t j = 0; j < 4 && i + j < out.size(); ++j) out[i + j] = std::min(static_cast<float>(low + width * (words[j] * 0x1p-32)), largest);
  }
}

std::vector<std::int64_t> random_permutation(std::int64_t n, std::uint64_t seed, std::uint64_t epoch) {
  if (n < 0 || n > std::numeric_limits<std::uint32_t>::max()) throw std::length_error("a permutation has at most 2^32 - 1 entries");
  const RandomStream stream(seed, RandomPurpose::order, epoch);
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) order[i] = i;
  for (std::int64_t i = n - 1; i > 0; --i) {
    // Upper half of the 128-bit product: uniform in [0, i] up to n / 2^64.
    const unsigned __int128 product = static_cast<unsigned __int128>(stream.bits(static_cast<std::uint32_t>(i))) * static_cast<std::uint64_t>(i + 1);
    std::swap(order[i], order[static_cast<std::int64_t>(product >> 64)]);
  }
  return order;
}

}  // namespace uvit
