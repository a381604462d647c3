#include <torch/torch.h>

#include "metrics/distances.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "io/host_tensor.h"

namespace uvit {
namespace {

constexpr std::int64_t kBlock = 1024;

at::Tensor block_of(const at::Tensor& rows, std::int64_t first) {
  return rows.narrow(0, first, std::min(kBlock, rows.size(0) - first)).to(at::kCPU, at::kDouble);
}

template <class T>
double squared_difference(const T* a, const T* b, std::int64_t dims) {
  double sums[8] = {};  // eight chains, so that the loop vectorises; the order is the same for every pair
  std::int64_t i = 0;
  for (; i + 8 <= dims; i += 8) {
    for (int lane = 0; lane < 8; ++lane) {
      const double d = static_cast<double>(a[i + lane]) - static_cast<double>(b[i + lane]);
      sums[lane] += d * d;
    }
  }
  for (; i < dims; ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sums[i % 8] += d * d;
  }
  return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}

}  // namespace

void check_feature_rows(const at::Tensor& a, const at::Tensor& b, const std::string& what) {
  if (a.dim() != 2 || b.dim() != 2 || a.size(1) != b.size(1) || a.size(0) < 1 || b.size(0) < 1) {
    throw Error(fmt::format("{} needs features [N, D] and [M, D] of one network, not {} and {}", what, format_shape(a.sizes().vec()),
                            format_shape(b.sizes().vec())));
  }
  for (const at::Tensor& each : {a, b}) {
    if (!each.isfinite().all().item<bool>()) throw Error(fmt::format("{}: the features of some image are not finite", what));
  }
}

at::Tensor pair_distances(const at::Tensor& x, const at::Tensor& y, const at::Tensor& pairs) {
  const at::Tensor result = at::empty({pairs.size(0)}, at::kDouble), list = pairs.contiguous();
  const bool narrow = x.scalar_type() == at::kFloat && y.scalar_type() == at::kFloat;
  const at::Tensor a = narrow ? x.contiguous() : x.to(at::kDouble).contiguous(), b = narrow ? y.contiguous() : y.to(at::kDouble).contiguous();
  const std::int64_t dims = x.size(1);
  const std::int64_t* pair = list.const_data_ptr<std::int64_t>();
  double* out = result.mutable_data_ptr<double>();
  at::parallel_for(0, pairs.size(0), 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t from = pair[2 * i] * dims, to = pair[2 * i + 1] * dims;
      out[i] = narrow ? squared_difference(a.const_data_ptr<float>() + from, b.const_data_ptr<float>() + to, dims)
                      : squared_difference(a.const_data_ptr<double>() + from, b.const_data_ptr<double>() + to, dims);
    }
  });
  return result;
}

void for_each_distance_block(const at::Tensor& x, const at::Tensor& y,
                             const std::function<void(std::int64_t, std::int64_t, const at::Tensor&, const at::Tensor&)>& use) {
  const torch::NoGradGuard no_grad;
  const double rounding = 2 * static_cast<double>(x.size(1) + 2) * std::numeric_limits<double>::epsilon();
  for (std::int64_t i = 0; i < x.size(0); i += kBlock) {
    const at::Tensor a = block_of(x, i), a_norm = a.square().sum(1, true);
    for (std::int64_t j = 0; j < y.size(0); j += kBlock) {
      const at::Tensor b = block_of(y, j), norms = a_norm + b.square().sum(1).unsqueeze(0);
      use(i, j, at::addmm(norms, a, b.t(), 1, -2).clamp_min_(0), norms * rounding);
    }
  }
}

Neighbours nearest_rows(const at::Tensor& queries, const at::Tensor& points, std::int64_t k, bool exclude_self) {
  const torch::NoGradGuard no_grad;
  const std::int64_t there = points.size(0) - (exclude_self ? 1 : 0), n = queries.size(0);
  if (there < k) throw Error(fmt::format("the {} nearest neighbours of an image cannot be found among {}: score more images", k, there));
  // A few more than asked for are kept, since rounding may have put neighbours at nearly one distance in the wrong order.
  const std::int64_t kept = std::min(k + 4, there);
  at::Tensor best, index;
  std::vector<at::Tensor> all_best, all_index;
  const auto flush = [&] {
    if (!best.defined()) return;
    all_index.push_back(index);
    best.reset();
  };
  for_each_distance_block(queries, points, [&](std::int64_t i, std::int64_t j, const at::Tensor& distance, const at::Tensor&) {
    at::Tensor d = distance;
    if (exclude_self && i == j) d.fill_diagonal_(std::numeric_limits<double>::infinity());
    if (j == 0) flush();
    const at::Tensor columns = at::arange(j, j + d.size(1)).unsqueeze(0).expand(d.sizes());
    const at::Tensor values = best.defined() ? at::cat({best, d}, 1) : d, places = best.defined() ? at::cat({index, columns}, 1) : columns;
    const auto [smallest, chosen] = values.topk(std::min(kept, values.size(1)), 1, /*largest=*/false);
    best = smallest;
    index = places.gather(1, chosen);
  });
  flush();
  const at::Tensor candidates = at::cat(all_index);  // [N, kept]
  const at::Tensor rows = at::arange(n).unsqueeze(1).expand(candidates.sizes());
  const at::Tensor exact = pair_distances(queries, points, at::stack({rows.flatten(), candidates.flatten()}, 1)).view(candidates.sizes());
  const auto [squared, order] = exact.sort(/*stable=*/std::optional<bool>(true), 1, /*descending=*/false);
  return {candidates.gather(1, order).narrow(1, 0, k).contiguous(), squared.narrow(1, 0, k).contiguous()};
}

}  // namespace uvit
