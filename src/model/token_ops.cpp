#include <torch/torch.h>

#include "model/token_ops.h"

#ifdef UVIT_HAS_CUDA
#include "model/cuda/fused_tokens.h"
#endif

namespace uvit {
namespace {

constexpr double kEps = 1e-5;

at::Tensor plain_layer_norm(const LayerNormWeights& norm, const at::Tensor& x) {
  return at::layer_norm(x.to(norm.weight.scalar_type()), norm.weight.sizes(), norm.weight, norm.bias, kEps);
}

}  // namespace

at::Tensor layer_norm(const LayerNormWeights& norm, const at::Tensor& x) {
#ifdef UVIT_HAS_CUDA
  if (takes_fused_layer_norm(x, {}, norm.weight)) return fused_layer_norm(x, norm.weight, norm.bias, kEps);
#endif
  return plain_layer_norm(norm, x);
}

std::pair<at::Tensor, at::Tensor> add_layer_norm(const LayerNormWeights& norm, const at::Tensor& x, const at::Tensor& branch) {
#ifdef UVIT_HAS_CUDA
  if (takes_fused_layer_norm(x, branch, norm.weight)) return fused_add_layer_norm(x, branch, norm.weight, norm.bias, kEps);
#endif
  const at::Tensor sum = x + branch;
  return {sum, plain_layer_norm(norm, sum)};
}

at::Tensor linear_gelu(const torch::nn::Linear& linear, const at::Tensor& x) {
#ifdef UVIT_HAS_CUDA
  if (takes_fused_gelu(x, linear->weight, linear->bias)) return fused_linear_gelu(x, linear->weight, linear->bias);
#endif
  return at::gelu(at::linear(x, linear->weight, linear->bias));
}

}  // namespace uvit
