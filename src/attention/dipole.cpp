#include <torch/torch.h>

#include "attention/attention.h"

namespace uvit {
namespace {

/// w_plus softmax(s) v + w_minus softmax(-s) v2: one weight a head for each pole, and a second value projection (without bias).
/// State dict beside the official names: w_plus, w_minus, v2.weight.
class Dipole : public Attention {
 public:
  explicit Dipole(const AttentionOptions& options) : Attention(options) {
    w_plus_ = register_parameter("w_plus", torch::ones({options.num_heads}));
    w_minus_ = register_parameter("w_minus", torch::ones({options.num_heads}));
    v2_ = register_module("v2", torch::nn::Linear(torch::nn::LinearOptions(options.embed_dim, options.embed_dim).bias(false)));
  }

 protected:
  /// One product gives all four parts in the layout that the packed operator reads: only the weights are copied together.
  at::Tensor project(const at::Tensor& x) override {
    const at::Tensor weight = at::cat({qkv_->weight, v2_->weight});  // [4 C, C]
    at::Tensor bias;
    if (qkv_->bias.defined()) bias = at::cat({qkv_->bias, at::zeros({options_.embed_dim}, qkv_->bias.options().requires_grad(false))});
    return at::linear(x, weight, bias).view({x.size(0), x.size(1), 4, options_.num_heads, options_.embed_dim / options_.num_heads});
  }

 private:
  torch::nn::Linear v2_{nullptr};
};

}  // namespace

std::shared_ptr<Attention> make_dipole(const AttentionOptions& options) { return std::make_shared<Dipole>(options); }

}  // namespace uvit
