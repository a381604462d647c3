#include <torch/torch.h>

#include "attention/attention.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <array>
#include <mutex>

#include "attention/eager.h"
#include "attention/operator.h"
#include "core/error.h"
#include "core/name_table.h"
#include "kernels/attention/cpu/attention_cpu.h"

namespace uvit {
namespace {

/// Once a process. An instruction set that UVIT_CPU_ISA names and this machine has not is the user's error.
void log_instruction_set() {
  static std::once_flag logged;
  std::call_once(logged, [] {
    try {
      spdlog::info("fused attention kernels for the CPU: {}", kernels::attention_isa());
    } catch (const std::invalid_argument& error) {
      throw Error(error.what());
    }
  });
}

}  // namespace

Attention::Attention(const AttentionOptions& options)
    : options_(options), op_(find_row(attention_kinds(), "attention kind", options.kind).op) {
  if (options.num_heads < 1 || options.embed_dim < 1 || options.embed_dim % options.num_heads != 0) {
    throw Error(fmt::format("attention: embed_dim {} is not a multiple of num_heads {}; choose heads that divide it", options.embed_dim,
                            options.num_heads));
  }
  static const std::array<std::string, 2> backends = {"fused", "eager"};
  if (!is_fused() && options.backend != backends[1]) throw_unknown_name("attention back end", options.backend, backends);
  if (is_fused()) log_instruction_set();
  qkv_ = register_module("qkv", torch::nn::Linear(torch::nn::LinearOptions(options.embed_dim, 3 * options.embed_dim).bias(options.qkv_bias)));
  proj_ = register_module("proj", torch::nn::Linear(options.embed_dim, options.embed_dim));
  const std::int64_t head_dim = options.embed_dim / options.num_heads;
  if (options.qk_norm) {
    q_norm_ = register_module("q_norm", std::make_shared<RmsNorm>(head_dim, 1e-6));
    k_norm_ = register_module("k_norm", std::make_shared<RmsNorm>(head_dim, 1e-6));
  }
  if (options.rope_rows > 0) rope_.emplace(options.rope_rows, options.rope_columns, head_dim);
}

at::Tensor Attention::forward(const at::Tensor& x) { return proj_->forward(attend(place(project(x)))); }

at::Tensor Attention::place(const at::Tensor& qkv) {
  if (!q_norm_ && !rope_) return qkv;
  std::vector<at::Tensor> parts = qkv.unbind(2);  // q, k, ...: [B, L, H, D]
  for (const std::size_t i : {0, 1}) {
    if (q_norm_) parts[i] = (i == 0 ? q_norm_ : k_norm_)->forward(parts[i]).to(qkv.scalar_type());
    if (rope_) parts[i] = rope_->rotate(parts[i]);
  }
  return at::stack(parts, 2);
}

at::Tensor Attention::project(const at::Tensor& x) {
  return qkv_->forward(x).view({x.size(0), x.size(1), 3, options_.num_heads, options_.embed_dim / options_.num_heads});
}

at::Tensor Attention::attend(const at::Tensor& qkv) {
  const char* kind = kernels::kind_name(op_);
  if (is_fused()) return attention_packed(qkv, kind, std::nullopt, false, w_plus_, w_minus_);
  return eager_attention_packed(qkv, kind, std::nullopt, false, w_plus_, w_minus_);
}

}  // namespace uvit
