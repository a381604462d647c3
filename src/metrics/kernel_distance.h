#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace uvit {

/// numpy's RandomState(seed).choice(population, size, replace=False), call after call, bit for bit: Mersenne twister, legacy shuffle.
class NumpyChoice {
 public:
  explicit NumpyChoice(std::uint32_t seed);
  /// int64 [size], all different. Throws Error for size > population.
  at::Tensor operator()(std::int64_t population, std::int64_t size);

 private:
  std::uint32_t next();
  std::vector<std::uint32_t> state_;
  std::size_t place_;
};

/// Unbiased squared MMD of x [m, D] and y [n, D] with the kernel (x.y / D + 1)^3, in float64, by blocks:
/// sum_{i != j} k(x_i, x_j) / (m (m - 1)) + the same of y - 2 sum k(x_i, y_j) / (m n). May be negative. Source: arXiv:1801.01401.
double polynomial_mmd(const at::Tensor& x, const at::Tensor& y);

/// KID as torch-fidelity draws it: polynomial_mmd of `subsets` pairs of subsets, drawn in turn from both sides by NumpyChoice(seed).
/// @return one value a subset. Throws Error where a side has fewer images than a subset.
std::vector<double> kid_subsets(const at::Tensor& x, const at::Tensor& y, std::int64_t subsets, std::int64_t subset_size, std::uint32_t seed);

/// Biased squared MMD with the kernel exp(-|x - y|^2 / (2 sigma^2)) of rows brought to unit length, times `scale`, in float64, by blocks.
/// CMMD is this on CLIP's embeddings with sigma 10 and scale 1000. Source: arXiv:2401.09603.
double gaussian_mmd(const at::Tensor& x, const at::Tensor& y, double sigma = 10, double scale = 1000);

}  // namespace uvit
