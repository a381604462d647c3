#pragma once
#include <ATen/core/Tensor.h>

#include <string_view>
#include <tuple>
#include <vector>

namespace uvit {

/// uvit::_attention_forward and uvit::_attention_backward, what the fused path rests on. For front ends that have checked their arguments: these only
/// make sure that no memory outside the tensors is touched.
/// @param inputs  q, k, v, then the extras of the kind in the order q2, k2, v2, w_plus, w_minus; or packed: qkv [B, L, S, H, D], w_plus, w_minus.
///                w_* are float32.
/// @return out [B, H, L, Dv], a view of [B, L, H, Dv] storage, and stats, float32 [2 or 4, B, H, L]: AttentionParams::stats
std::tuple<at::Tensor, at::Tensor> attention_forward_cpu(at::TensorList inputs, std::string_view kind, double scale, bool causal);
std::tuple<at::Tensor, at::Tensor> attention_forward_meta(at::TensorList inputs, std::string_view kind, double scale, bool causal);

/// @return the gradients of the inputs, in their order: those of [B, H, L, D] are views of [B, L, H, D] storage, that of qkv is contiguous
std::vector<at::Tensor> attention_backward_cpu(const at::Tensor& dout, at::TensorList inputs, const at::Tensor& out, const at::Tensor& stats,
                                               std::string_view kind, double scale, bool causal);
std::vector<at::Tensor> attention_backward_meta(const at::Tensor& dout, at::TensorList inputs, const at::Tensor& out, const at::Tensor& stats,
                                                std::string_view kind, double scale, bool causal);

/// The Autograd kernels of the two: gradients of the first, and of the second an error that says what to do.
std::tuple<at::Tensor, at::Tensor> attention_forward_autograd(at::TensorList inputs, std::string_view kind, double scale, bool causal);
std::vector<at::Tensor> attention_backward_autograd(const at::Tensor& dout, at::TensorList inputs, const at::Tensor& out, const at::Tensor& stats,
                                                    std::string_view kind, double scale, bool causal);

/// The two through torch's dispatcher.
std::tuple<at::Tensor, at::Tensor> call_attention_forward(at::TensorList inputs, std::string_view kind, double scale, bool causal);
std::vector<at::Tensor> call_attention_backward(const at::Tensor& dout, at::TensorList inputs, const at::Tensor& out, const at::Tensor& stats,
                                                std::string_view kind, double scale, bool causal);

}  // namespace uvit
