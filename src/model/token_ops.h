#pragma once
#include <torch/nn/modules/linear.h>

#include <utility>

namespace uvit {

// The passes over tokens between the products of a block: plain operations on the CPU, one kernel each on a GPU (kernels/norm), where they are kept
// waiting by memory alone.

/// Weight and bias [C] of a LayerNorm; its eps is 1e-5.
struct LayerNormWeights {
  const at::Tensor &weight, &bias;
};

/// LayerNorm in the dtype of its weights, so in float32 under autocast; on a GPU its result is rounded to autocast's dtype at once, as the
/// linear layer behind it would.
at::Tensor layer_norm(const LayerNormWeights& norm, const at::Tensor& x);

/// {x + branch, layer_norm(norm, x + branch)}: the end of one residual branch and the beginning of the next.
std::pair<at::Tensor, at::Tensor> add_layer_norm(const LayerNormWeights& norm, const at::Tensor& x, const at::Tensor& branch);

/// gelu(linear(x)), GELU with erf.
at::Tensor linear_gelu(const torch::nn::Linear& linear, const at::Tensor& x);

}  // namespace uvit
