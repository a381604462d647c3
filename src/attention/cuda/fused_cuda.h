#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace uvit {

/// As attention_forward_cpu of fused.h, for tensors on a GPU: on its current stream, without waiting for it; may be captured into a CUDA graph.
std::tuple<at::Tensor, at::Tensor> attention_forward_cuda(at::TensorList inputs, std::string_view kind, double scale, bool causal);
std::vector<at::Tensor> attention_backward_cuda(const at::Tensor& dout, at::TensorList inputs, const at::Tensor& out, const at::Tensor& stats,
                                                std::string_view kind, double scale, bool causal);

/// Why the GPU there is cannot run the kernels; "" where it can, and where there is none: what a plan says does not hang on the machine.
std::string cuda_kernels_obstacle();

}  // namespace uvit
