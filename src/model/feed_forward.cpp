#include <torch/torch.h>

#include "model/feed_forward.h"

#include <algorithm>
#include <array>

#include "core/name_table.h"
#include "model/token_ops.h"

namespace uvit {
namespace {

class Mlp : public FeedForward {
 public:
  Mlp(std::int64_t embed_dim, std::int64_t hidden_dim) {
    fc1_ = register_module("fc1", torch::nn::Linear(embed_dim, hidden_dim));
    fc2_ = register_module("fc2", torch::nn::Linear(hidden_dim, embed_dim));
  }
  at::Tensor forward(const at::Tensor& x) override { return fc2_->forward(linear_gelu(fc1_, x)); }

 private:
  torch::nn::Linear fc1_{nullptr}, fc2_{nullptr};
};

class SwiGlu : public FeedForward {
 public:
  SwiGlu(std::int64_t embed_dim, std::int64_t width) {
    w12_ = register_module("w12", torch::nn::Linear(embed_dim, 2 * width));
    w3_ = register_module("w3", torch::nn::Linear(width, embed_dim));
  }
  at::Tensor forward(const at::Tensor& x) override {
    const std::vector<at::Tensor> parts = w12_->forward(x).chunk(2, -1);
    return w3_->forward(at::silu(parts[0]) * parts[1]);
  }

 private:
  torch::nn::Linear w12_{nullptr}, w3_{nullptr};
};

}  // namespace

std::int64_t swiglu_width(std::int64_t hidden_dim) { return std::max<std::int64_t>(8, (2 * hidden_dim / 3 + 7) / 8 * 8); }

std::shared_ptr<FeedForward> make_feed_forward(const std::string& kind, std::int64_t embed_dim, std::int64_t hidden_dim) {
  static const std::array<std::string, 2> kinds = {"gelu", "swiglu"};
  if (kind == kinds[1]) return std::make_shared<SwiGlu>(embed_dim, swiglu_width(hidden_dim));
  if (kind != kinds[0]) throw_unknown_name("MLP", kind, kinds);
  return std::make_shared<Mlp>(embed_dim, hidden_dim);
}

}  // namespace uvit
