#include <torch/torch.h>

#include "attention/rope.h"

#include <fmt/format.h>

#include "core/error.h"

namespace uvit {

AxialRope::AxialRope(std::int64_t rows, std::int64_t columns, std::int64_t head_dim) : patches_(rows * columns) {
  if (head_dim % 4 != 0)
    throw Error(fmt::format("model.rope turns pairs of a head along two axes: embed_dim / num_heads = {} must be a multiple of 4", head_dim));
  const auto wide = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor frequencies = at::pow(100.0, at::arange(head_dim / 4, wide) * (-4.0 / static_cast<double>(head_dim)));
  const at::Tensor place = at::arange(patches_, at::kLong);
  const auto angles = [&](const at::Tensor& along) { return at::outer(along.to(at::kDouble), frequencies); };  // [N, D/4]
  const at::Tensor all = at::cat({angles(place.remainder(columns)), angles(place.floor_divide(columns))}, 1).unsqueeze(1);
  cos_ = all.cos();
  sin_ = all.sin();
}

at::Tensor AxialRope::rotate(const at::Tensor& x) {
  const at::ScalarType dtype = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  if (cos_.device() != x.device() || cos_.scalar_type() != dtype) {  // kept: a copy in every pass would stall a GPU
    cos_ = cos_.to(x.device(), dtype);
    sin_ = sin_.to(x.device(), dtype);
  }
  const std::int64_t extras = x.size(1) - patches_;
  const std::vector<at::Tensor> pair = x.narrow(1, extras, patches_).to(dtype).unflatten(3, {-1, 2}).unbind(4);  // [B, N, H, D/2] twice
  const at::Tensor turned = at::stack({pair[0] * cos_ - pair[1] * sin_, pair[0] * sin_ + pair[1] * cos_}, 4).flatten(3);
  return at::cat({x.narrow(1, 0, extras), turned.to(x.scalar_type())}, 1);
}

}  // namespace uvit
