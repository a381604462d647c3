#include <torch/torch.h>

#include "metrics/kernel_distance.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "metrics/distances.h"

namespace uvit {
namespace {

constexpr std::int64_t kBlock = 2048;
constexpr std::size_t kState = 624, kShift = 397;

at::Tensor block_of(const at::Tensor& rows, std::int64_t first) {
  return rows.narrow(0, first, std::min(kBlock, rows.size(0) - first)).to(at::kCPU, at::kDouble);
}

// Sum of kernel(x_i . y_j) over all pairs; where both are the same rows, over the pairs i != j.
template <class Kernel>
double kernel_sum(const at::Tensor& x, const at::Tensor& y, bool off_diagonal, const Kernel& kernel) {
  double sum = 0;
  for (std::int64_t i = 0; i < x.size(0); i += kBlock) {
    const at::Tensor a = block_of(x, i);
    for (std::int64_t j = 0; j < y.size(0); j += kBlock) {
      const at::Tensor k = kernel(at::mm(a, block_of(y, j).t()));
      sum += k.sum().item<double>();
      if (off_diagonal && i == j) sum -= k.diagonal().sum().item<double>();
    }
  }
  return sum;
}

double count(const at::Tensor& x) { return static_cast<double>(x.size(0)); }

}  // namespace

NumpyChoice::NumpyChoice(std::uint32_t seed) : state_(kState), place_(kState) {
  state_[0] = seed;
  for (std::size_t i = 1; i < kState; ++i) state_[i] = 1812433253u * (state_[i - 1] ^ (state_[i - 1] >> 30)) + static_cast<std::uint32_t>(i);
}

std::uint32_t NumpyChoice::next() {
  if (place_ == kState) {
    for (std::size_t i = 0; i < kState; ++i) {
      const std::uint32_t y = (state_[i] & 0x80000000u) | (state_[(i + 1) % kState] & 0x7fffffffu);
      state_[i] = state_[(i + kShift) % kState] ^ (y >> 1) ^ ((y & 1u) ? 0x9908b0dfu : 0u);
    }
    place_ = 0;
  }
  std::uint32_t y = state_[place_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

at::Tensor NumpyChoice::operator()(std::int64_t population, std::int64_t size) {
  if (size > population) throw Error(fmt::format("a subset of {} images cannot be drawn from {}", size, population));
  std::vector<std::int64_t> order(static_cast<std::size_t>(population));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::size_t i = order.size() - 1; i > 0; --i) {
    std::uint32_t mask = static_cast<std::uint32_t>(i), draw = 0;
    for (const int shift : {1, 2, 4, 8, 16}) mask |= mask >> shift;
    do draw = next() & mask;
    while (draw > i);
    std::swap(order[i], order[draw]);
  }
  order.resize(static_cast<std::size_t>(size));
  return torch::tensor(order);
}

double polynomial_mmd(const at::Tensor& x, const at::Tensor& y) {
  const torch::NoGradGuard no_grad;
  check_feature_rows(x, y, "KID");
  if (x.size(0) < 2 || y.size(0) < 2) throw Error(fmt::format("KID needs at least 2 images a side, not {} and {}", x.size(0), y.size(0)));
  const double dims = static_cast<double>(x.size(1)), m = count(x), n = count(y);
  const auto kernel = [dims](const at::Tensor& products) {
    const at::Tensor k = products.div(dims).add_(1);
    return k.square().mul_(k);
  };
  return kernel_sum(x, x, true, kernel) / (m * (m - 1)) + kernel_sum(y, y, true, kernel) / (n * (n - 1)) -
         2 * kernel_sum(x, y, false, kernel) / (m * n);
}

std::vector<double> kid_subsets(const at::Tensor& x, const at::Tensor& y, std::int64_t subsets, std::int64_t subset_size, std::uint32_t seed) {
  NumpyChoice choice(seed);
  std::vector<double> values;
  for (std::int64_t i = 0; i < subsets; ++i) {
    const at::Tensor from_x = choice(x.size(0), subset_size), from_y = choice(y.size(0), subset_size);
    values.push_back(polynomial_mmd(x.index_select(0, from_x), y.index_select(0, from_y)));
  }
  return values;
}

double gaussian_mmd(const at::Tensor& x, const at::Tensor& y, double sigma, double scale) {
  const torch::NoGradGuard no_grad;
  check_feature_rows(x, y, "MMD");
  const auto unit = [](const at::Tensor& rows) {
    const at::Tensor norm = rows.to(at::kDouble).norm(2, 1, true);
    if (!(norm.min().item<double>() > 0)) throw Error("MMD: the features of some image are all zero, so they have no direction");
    return rows.to(at::kDouble) / norm;
  };
  const at::Tensor a = unit(x), b = unit(y);
  // Of unit rows |x - y|^2 = 2 - 2 x.y.
  const auto kernel = [sigma](const at::Tensor& products) { return products.sub(1).div_(sigma * sigma).exp_(); };
  const double m = count(a), n = count(b);
  return scale * (kernel_sum(a, a, false, kernel) / (m * m) + kernel_sum(b, b, false, kernel) / (n * n) - 2 * kernel_sum(a, b, false, kernel) / (m * n));
}

}  // namespace uvit
