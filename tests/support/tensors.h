#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

#include "checkpoint/tensor_convert.h"
#include "support/compare.h"

namespace uvit::test {

inline std::vector<double> values_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().to(at::kCPU, at::kDouble).contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

/// check_close for tensors; the shapes must agree too.
inline void check_tensor(const std::string& what, const at::Tensor& value, const at::Tensor& reference, double budget) {
  INFO(what);
  REQUIRE(value.sizes() == reference.sizes());
  check_close(what, values_of(value), values_of(reference), budget);
}

inline double max_abs(const at::Tensor& tensor) { return max_abs(values_of(tensor)); }

/// A tensor of a fixture file in this dtype, a leaf that collects gradients if it is wanted.
inline at::Tensor load_tensor(const TensorFile& file, const std::string& name, at::ScalarType dtype, bool requires_grad = false) {
  return to_torch(file.at(name)).to(dtype).set_requires_grad(requires_grad);
}

}  // namespace uvit::test
