#pragma once
#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "attention/rms_norm.h"
#include "attention/rope.h"
#include "kernels/attention/kinds.h"

namespace uvit {

/// What an attention block needs to know to be made.
struct AttentionOptions {
  std::int64_t embed_dim = 0, num_heads = 0;
  bool qkv_bias = false;
  std::int64_t block_index = 0;  ///< place in running order from 0
  std::string kind;              ///< row of the kind table
  std::string backend = "fused";  ///< "fused": the operator of operator.h; "eager": plain ATen operations
  bool qk_norm = false;           ///< RMSNorm (eps 1e-6) of every head's queries and keys, with a learned scale [head_dim] (arXiv:2403.03206)
  std::int64_t rope_rows = 0, rope_columns = 0;  ///< grid of the patches, the last tokens, whose queries and keys are turned (rope.h); 0: none
};

/// Multi-head self-attention of one block: x [B, L, C] -> proj(attend(place(project(x)))) [B, L, C].
/// State dict: qkv.weight (, qkv.bias), proj.weight, proj.bias (, q_norm.weight, k_norm.weight).
/// A kind with parameters of its own derives from it and registers them (so that they are attn.<name>).
class Attention : public torch::nn::Module {
 public:
  explicit Attention(const AttentionOptions& options);
  at::Tensor forward(const at::Tensor& x);

 protected:
  /// @param x [B, L, C], the block's normalised input; @return [B, L, S, H, D]: q, k, v, and what else the kind projects
  virtual at::Tensor project(const at::Tensor& x);
  /// @param qkv what project gave; @return [B, L, C]
  virtual at::Tensor attend(const at::Tensor& qkv);

  /// Normalises and turns the queries and keys of what project gave, head by head: every kind's q and k have heads of head_dim (differential's two
  /// halves are two of them).
  at::Tensor place(const at::Tensor& qkv);

  bool is_fused() const { return options_.backend == "fused"; }
  AttentionOptions options_;
  kernels::Kind op_;               ///< the operator's kind
  at::Tensor w_plus_, w_minus_;    ///< [H], of the kinds that have them
  torch::nn::Linear qkv_{nullptr}, proj_{nullptr};

 private:
  std::shared_ptr<RmsNorm> q_norm_, k_norm_;  ///< with qk_norm
  std::optional<AxialRope> rope_;
};

/// A row of the table of attention kinds.
struct AttentionKind {
  std::string name;
  std::string description;  ///< formula and source
  std::shared_ptr<Attention> (*make)(const AttentionOptions& options);
  kernels::Kind op;  ///< what the operator computes for it
};

std::span<const AttentionKind> attention_kinds();

/// The module of options.kind. Throws Error for an unknown kind or back end, with the nearest name, and for heads that do not fit.
std::shared_ptr<Attention> make_attention(const AttentionOptions& options);

/// Width of the values that the kind's operator sees: head_dim, twice that for differential.
std::int64_t value_dim(const AttentionKind& kind, std::int64_t head_dim);

// The modules with parameters of their own, for the table.
std::shared_ptr<Attention> make_sda_weighted(const AttentionOptions& options);
std::shared_ptr<Attention> make_dipole(const AttentionOptions& options);
std::shared_ptr<Attention> make_differential(const AttentionOptions& options);

}  // namespace uvit
