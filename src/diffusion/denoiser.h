#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace uvit {

/// Both readings of one network output: x_t = alpha x0 + sigma eps.
struct Prediction {
  at::Tensor x0, eps;
};

/// Denoiser(x [B, C, H, W], t double[B]) -> {x0, eps}. Guidance and thresholding wrap one; samplers know nothing else.
using Denoiser = std::function<Prediction(const at::Tensor& x, const std::vector<double>& t)>;

}  // namespace uvit
