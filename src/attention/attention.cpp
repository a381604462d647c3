#include <torch/torch.h>

#include "attention/attention.h"

#include <fmt/format.h>

#include <array>

#include "attention/eager.h"
#include "core/error.h"
#include "core/name_table.h"

namespace uvit {

Attention::Attention(const AttentionOptions& options) : options_(options) {
  if (options.num_heads < 1 || options.embed_dim < 1 || options.embed_dim % options.num_heads != 0) {
    throw Error(fmt::format("attention: embed_dim {} is not a multiple of num_heads {}; choose heads that divide it", options.embed_dim, options.num_heads));
  }
  static const std::array<std::string, 1> backends = {"eager"};
  if (options.backend != backends[0]) throw_unknown_name("attention back end", options.backend, backends);
  qkv_ = register_module("qkv", torch::nn::Linear(torch::nn::LinearOptions(options.embed_dim, 3 * options.embed_dim).bias(options.qkv_bias)));
  proj_ = register_module("proj", torch::nn::Linear(options.embed_dim, options.embed_dim));
}

at::Tensor Attention::forward(const at::Tensor& x) {
  const std::int64_t heads = options_.num_heads, head_dim = options_.embed_dim / heads;
  const at::Tensor qkv = qkv_->forward(x).view({x.size(0), x.size(1), 3, heads, head_dim});
  return proj_->forward(attend(x, qkv));
}

at::Tensor Attention::attend(const at::Tensor& /*x*/, const at::Tensor& qkv) {
  // One copy packs the three so that heads fold into the batch of bmm; taken apart by unbind, whose backward is one stack and not three padded sums.
  const bool reduced = qkv.scalar_type() == at::kBFloat16 || qkv.scalar_type() == at::kHalf;
  const at::Tensor packed = qkv.permute({2, 0, 3, 1, 4}).to(reduced ? at::kFloat : qkv.scalar_type()).contiguous();  // [3, B, H, L, D]
  const std::vector<at::Tensor> parts = packed.unbind(0);
  const at::Tensor out = eager_attention(parts[0], parts[1], parts[2], options_.kind);  // [B, H, L, D]
  return out.transpose(1, 2).reshape({qkv.size(0), qkv.size(1), options_.embed_dim}).to(qkv.scalar_type());
}

}  // namespace uvit
