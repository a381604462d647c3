#include <torch/torch.h>

#include "attention/rms_norm.h"

namespace uvit {

RmsNorm::RmsNorm(std::int64_t width, double eps) : weight_(register_parameter("weight", torch::ones({width}))), eps_(eps) {}

at::Tensor RmsNorm::forward(const at::Tensor& x) const { return at::rms_norm(x.to(weight_.scalar_type()), weight_.sizes(), weight_, eps_); }

}  // namespace uvit
