#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace uvit {

/// What a random draw is for. Draws of different purposes are independent; the numbers are part of the reproducibility contract, never reuse one.
enum class RandomPurpose : std::uint32_t {
  order = 1,       ///< permutation of the dataset; index = epoch
  t = 2,           ///< diffusion time of a training sample; index = global sample index
  noise = 3,       ///< noise of a training sample; index = global sample index
  flip = 4,        ///< horizontal flip of a training sample; index = global sample index
  label_drop = 5,  ///< label dropout of a training sample; index = global sample index
  sample = 6,      ///< sampling: step 0 is the initial noise, step k > 0 the k-th draw of a solver; the seed is the image's own (S + i), index 0
  init = 7,        ///< initial value of a parameter; index = hash of the parameter's name
  evaluation = 8,  ///< t and noise of the held-out loss; index = position in the held-out set
  latent = 9,      ///< an autoencoder's draw from its posterior; index = global sample index
  caption = 10,    ///< which caption of an image a training sample takes; index = global sample index
};

/// Philox4x32-10 (Salmon et al., SC 2011): ten rounds on a 128-bit counter with a 64-bit key; returns four 32-bit words.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

/// 64-bit FNV-1a hash of a name, for RandomPurpose::init.
std::uint64_t hash_name(std::string_view name);

/// Stateless random numbers: the value at position i is a pure function of (seed, purpose, index, step, i).
/// The key is a 64-bit mix of (seed, purpose); the counter is (i / 4, step, index low, index high). Nothing is ever saved.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, RandomPurpose purpose, std::uint64_t index = 0, std::uint32_t step = 0);

  /// 64 random bits: words 2i and 2i + 1 of the stream.
  std::uint64_t bits(std::uint32_t i) const;
  /// Uniform in [0, 1) with 53 bits, from bits(i).
  double uniform(std::uint32_t i = 0) const;
  /// Standard normal values (Box-Muller on pairs of words), out[i] depends on i alone.
  void fill_normal(std::span<float> out) const;
  /// Uniform in [low, high).
  void fill_uniform(std::span<float> out, float low, float high) const;

 private:
  std::array<std::uint32_t, 4> block(std::uint32_t b) const;
  std::array<std::uint32_t, 2> key_;
  std::uint32_t step_;
  std::uint64_t index_;
};

/// Fisher-Yates permutation of 0..n-1 for one epoch: a pure function of (seed, epoch, n).
std::vector<std::int64_t> random_permutation(std::int64_t n, std::uint64_t seed, std::uint64_t epoch);

}  // namespace uvit
