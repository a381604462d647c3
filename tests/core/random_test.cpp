#include "core/random.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <numbers>
#include <set>

using namespace uvit;

namespace {

std::vector<float> normals(std::size_t n, std::uint64_t seed, RandomPurpose purpose = RandomPurpose::noise, std::uint64_t index = 0,
                           std::uint32_t step = 0) {
  std::vector<float> values(n);
  RandomStream(seed, purpose, index, step).fill_normal(values);
  return values;
}

double correlation(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * b[i];
  return sum / static_cast<double>(a.size());
}

}  // namespace

TEST_CASE("philox4x32-10 gives the known answers of Random123") {
  using Words = std::array<std::uint32_t, 4>;
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("hash_name is FNV-1a with 64 bits") {
  CHECK(hash_name("") == 0xcbf29ce484222325);
  CHECK(hash_name("a") == 0xaf63dc4c8601ec8c);
  CHECK(hash_name("foobar") == 0x85944171f73967e8);
}

TEST_CASE("a normal value is Box-Muller of its two words, to float rounding") {
  const RandomStream stream(7, RandomPurpose::noise, 3, 2);
  std::vector<float> values(4096);
  stream.fill_normal(values);
  double worst = 0;
  for (std::uint32_t i = 0; i < values.size() / 2; ++i) {
    const std::uint64_t bits = stream.bits(i);
    const auto a = static_cast<std::uint32_t>(bits), b = static_cast<std::uint32_t>(bits >> 32);
    const double radius = std::sqrt(-2 * std::log((a + 0.5) / 4294967296.0));
    const double angle = ((b >> 30) + ((b & 0x3FFFFFFF) + 0.5) / 1073741824.0 - 0.5) * std::numbers::pi / 2;
    worst = std::max({worst, std::abs(values[2 * i] - radius * std::cos(angle)), std::abs(values[2 * i + 1] - radius * std::sin(angle))});
  }
  CHECK(worst < 4e-7);  // half a unit in the last place of a float below 6.8 is 2.4e-7
}

TEST_CASE("normal values have the moments and the tail of a standard normal") {
  const std::size_t n = 1 << 20;
  const std::vector<float> values = normals(n, 1);
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
  std::size_t beyond_two = 0;
  for (double v : values) {
    m1 += v, m2 += v * v, m3 += v * v * v, m4 += v * v * v * v;
    beyond_two += std::abs(v) > 2;
  }
  // Six standard errors each: sqrt(1, 2, 15, 96) / sqrt(n).
  const double root = std::sqrt(static_cast<double>(n));
  CHECK(std::abs(m1 / n) < 6 / root);
  CHECK(std::abs(m2 / n - 1) < 6 * std::sqrt(2.0) / root);
  CHECK(std::abs(m3 / n) < 6 * std::sqrt(15.0) / root);
  CHECK(std::abs(m4 / n - 3) < 6 * std::sqrt(96.0) / root);
  const double share = std::erfc(std::sqrt(2.0));
  CHECK(std::abs(static_cast<double>(beyond_two) / n - share) < 6 * std::sqrt(share) / root);
  const std::vector<float> odd(values.begin() + 1, values.end()), even(values.begin(), values.end() - 1);
  CHECK(std::abs(correlation(even, odd)) < 6 / root);
}

TEST_CASE("a value depends on its place alone, and streams of different keys are unlike") {
  const std::size_t n = 10001;
  const std::vector<float> all = normals(n, 5);
  for (std::size_t length : {0, 1, 2, 3, 5, 4096}) {
    const std::vector<float> some = normals(length, 5);
    CHECK(std::equal(some.begin(), some.end(), all.begin()));
  }
  for (const std::vector<float>& other : {normals(n, 6), normals(n, 5, RandomPurpose::sample), normals(n, 5, RandomPurpose::noise, 1),
                                          normals(n, 5, RandomPurpose::noise, std::uint64_t{1} << 32), normals(n, 5, RandomPurpose::noise, 0, 1)})
    CHECK(std::abs(correlation(all, other)) < 6 / std::sqrt(static_cast<double>(n)));
}

TEST_CASE("uniform values fill their interval and never reach its end") {
  const RandomStream stream(3, RandomPurpose::t);
  std::vector<float> values(100000);
  stream.fill_uniform(values, -2.0f, 3.0f);
  double sum = 0;
  for (float v : values) {
    REQUIRE((v >= -2.0f && v < 3.0f));
    sum += v;
  }
  CHECK(std::abs(sum / values.size() - 0.5) < 6 * 5 / std::sqrt(12.0 * values.size()));
  CHECK(*std::min_element(values.begin(), values.end()) < -1.999f);
  CHECK(*std::max_element(values.begin(), values.end()) > 2.999f);

  stream.fill_uniform(values, 1.0f, std::nextafter(1.0f, 2.0f));  // only one float lies in it
  CHECK(std::all_of(values.begin(), values.end(), [](float v) { return v == 1.0f; }));

  double mean = 0;
  for (std::uint32_t i = 0; i < 10000; ++i) {
    const double u = stream.uniform(i);
    REQUIRE((u >= 0 && u < 1));
    mean += u / 10000;
  }
  CHECK(std::abs(mean - 0.5) < 6 / std::sqrt(12.0 * 10000));
}

TEST_CASE("random_permutation permutes, differs by seed and epoch, and is uniform") {
  for (std::int64_t n : {0, 1, 2, 1000}) {
    std::vector<std::int64_t> order = random_permutation(n, 1, 2);
    CHECK(order == random_permutation(n, 1, 2));
    std::sort(order.begin(), order.end());
    for (std::int64_t i = 0; i < n; ++i) REQUIRE(order[i] == i);
  }
  CHECK(random_permutation(1000, 1, 2) != random_permutation(1000, 1, 3));
  CHECK(random_permutation(1000, 1, 2) != random_permutation(1000, 2, 2));

  std::array<int, 24> counts{};
  const int trials = 24000;
  for (int epoch = 0; epoch < trials; ++epoch) {
    const std::vector<std::int64_t> order = random_permutation(4, 9, epoch);
    const std::set<std::int64_t> rest01(order.begin() + 1, order.end());
    const auto rank1 = std::distance(rest01.begin(), rest01.find(order[1]));
    counts[static_cast<std::size_t>(order[0] * 6 + rank1 * 2 + (order[2] > order[3]))]++;
  }
  double chi2 = 0;
  for (int count : counts) chi2 += (count - 1000.0) * (count - 1000.0) / 1000.0;
  CHECK(chi2 < 60);  // 23 degrees of freedom: exceeded with probability 4e-5
}
