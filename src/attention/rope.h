#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace uvit {

/// Rotary position embedding along two axes (Heo et al., arXiv:2403.13298, section 3.1). A head's D values are D/2 pairs of neighbours; with
/// f_i = 100^(-4 i / D), i < D/4, pair i of a token in (row, column) is turned by column * f_i and pair D/4 + i by row * f_i:
///   (a, b) -> (a cos - b sin, a sin + b cos)
/// So the product of a query and a key hangs on the difference of their rows and columns alone.
class AxialRope {
 public:
  /// Throws Error unless head_dim is a multiple of 4.
  AxialRope(std::int64_t rows, std::int64_t columns, std::int64_t head_dim);

  /// @param x [B, L, H, D], whose last rows * columns tokens are the patches in raster order; those before them have no place and stay as they are.
  /// @return the same shape and dtype; turned in float32 or better
  at::Tensor rotate(const at::Tensor& x);

 private:
  std::int64_t patches_;
  at::Tensor cos_, sin_;  ///< [patches, 1, D/2], of the dtype and device that were asked for last
};

}  // namespace uvit
