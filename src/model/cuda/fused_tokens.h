#pragma once
#include <ATen/core/Tensor.h>

#include <utility>

namespace uvit {

// kernels/norm behind autograd. Gradients of first order only; a second derivative is a clear error.

/// Whether the kernel takes these: CUDA tensors, float32 weights, and dtypes that go together of x, of branch (may be undefined) and of the result,
/// which is autocast's where that is on.
bool takes_fused_layer_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight);
at::Tensor fused_layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps);
/// {x + branch, norm of it}
std::pair<at::Tensor, at::Tensor> fused_add_layer_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                                                       const at::Tensor& bias, double eps);

/// gelu(linear(x)), the bias left to the kernel: float32, whatever the product's dtype.
bool takes_fused_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
at::Tensor fused_linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace uvit
