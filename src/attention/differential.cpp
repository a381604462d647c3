#include <torch/torch.h>

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <vector>

#include "attention/attention.h"
#include "attention/eager.h"
#include "attention/operator.h"
#include "attention/rms_norm.h"
#include "core/error.h"

namespace uvit {
namespace {

/// Differential attention (arXiv:2410.05258): H / 2 heads; head i has the queries and keys of the plain heads 2i and 2i + 1 (width d) and values
/// of width 2d.
///   o = RMSNorm([softmax(s1) - lambda softmax(s2)] v) (1 - lambda_init)     lambda = exp(lq1 . lk1) - exp(lq2 . lk2) + lambda_init
/// lambda_init = 0.8 - 0.6 exp(-0.3 block_index). As in the paper q, k and v have no bias, whatever qkv_bias says.
/// State dict beside the official names: lambda_q1, lambda_k1, lambda_q2, lambda_k2 [d], shared by the block's heads; subln.weight [2d].
class Differential : public Attention {
 public:
  explicit Differential(const AttentionOptions& options) : Attention(without_bias(options)) {
    if (options.num_heads % 2 != 0) {
      throw Error(fmt::format("attention kind 'differential' pairs the heads: model.num_heads = {} must be even", options.num_heads));
    }
    const std::int64_t head_dim = options.embed_dim / options.num_heads;
    lambda_init_ = 0.8 - 0.6 * std::exp(-0.3 * static_cast<double>(options.block_index));
    const std::array<const char*, 4> names = {"lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"};
    for (std::size_t i = 0; i < names.size(); ++i) lambda_[i] = register_parameter(names[i], torch::randn({head_dim}) * 0.1);
    subln_ = register_module("subln", std::make_shared<RmsNorm>(2 * head_dim, 1e-5));
  }

 protected:
  at::Tensor attend(const at::Tensor& qkv) override {
    const std::int64_t batch = qkv.size(0), length = qkv.size(1), pairs = options_.num_heads / 2, head_dim = qkv.size(4);
    // Taken apart by unbind, whose backward is one stack.
    const std::vector<at::Tensor> parts = qkv.unbind(2);  // q, k, v: [B, L, H, D]
    const auto halves = [&](const at::Tensor& x) { return x.unflatten(2, {pairs, 2}).unbind(3); };
    const auto heads_first = [](const at::Tensor& x) { return x.transpose(1, 2); };
    const std::vector<at::Tensor> q = halves(parts[0]), k = halves(parts[1]);
    const at::Tensor v = parts[2].view({batch, length, pairs, 2 * head_dim});
    AttentionExtras extras;
    extras.q2 = heads_first(q[1]);
    extras.k2 = heads_first(k[1]);
    extras.w_minus = lambda().expand({pairs});
    const auto run = is_fused() ? attention : eager_attention;
    const at::Tensor out = run(heads_first(q[0]), heads_first(k[0]), heads_first(v), "diff", std::nullopt, false, extras);  // [B, H/2, L, 2D]
    const at::Tensor normalised = subln_->forward(heads_first(out)) * (1 - lambda_init_);                                   // [B, L, H/2, 2D]
    return normalised.reshape({batch, length, options_.embed_dim}).to(qkv.scalar_type());
  }

 private:
  static AttentionOptions without_bias(AttentionOptions options) {
    options.qkv_bias = false;
    return options;
  }
  at::Tensor lambda() const {
    return (lambda_[0] * lambda_[1]).sum().exp() - (lambda_[2] * lambda_[3]).sum().exp() + lambda_init_;
  }

  double lambda_init_ = 0;
  std::array<at::Tensor, 4> lambda_;
  std::shared_ptr<RmsNorm> subln_;
};

}  // namespace

std::shared_ptr<Attention> make_differential(const AttentionOptions& options) { return std::make_shared<Differential>(options); }

}  // namespace uvit
