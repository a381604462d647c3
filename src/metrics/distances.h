#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace uvit {

/// Throws Error unless both are [N, D] and [M, D] with N, M >= 1 and finite. @param what the metric, for the message
void check_feature_rows(const at::Tensor& a, const at::Tensor& b, const std::string& what);

/// |x - y|^2 in float64 of each pair (pairs[i, 0], pairs[i, 1]) of rows, summed in one fixed order: equal rows give equal distances.
at::Tensor pair_distances(const at::Tensor& x, const at::Tensor& y, const at::Tensor& pairs);

/// Calls `use` with blocks of squared Euclidean distances between rows of x [N, D] and y [M, D], float64: |x|^2 + |y|^2 - 2 x.y, never negative, and the
/// largest rounding of each value. No more than one block is in memory.
/// @param use  (first row of x, first row of y, distances [n, m], rounding [n, m])
void for_each_distance_block(const at::Tensor& x, const at::Tensor& y,
                             const std::function<void(std::int64_t, std::int64_t, const at::Tensor&, const at::Tensor&)>& use);

/// Nearest rows. `index` int64 [N, k], `squared` float64 [N, k], ascending, exact to the last bit (see pair_distances).
struct Neighbours {
  at::Tensor index, squared;
};
/// The k rows of `points` nearest to each row of `queries`. @param exclude_self both are the same rows, and a row is not its own neighbour
/// Throws Error where there are fewer than k.
Neighbours nearest_rows(const at::Tensor& queries, const at::Tensor& points, std::int64_t k, bool exclude_self);

}  // namespace uvit
