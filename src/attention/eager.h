#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

#include "kernels/attention/kinds.h"

namespace uvit {

/// Operands that only some kinds take; undefined where the kind has none.
struct AttentionExtras {
  at::Tensor q2 = {}, k2 = {};           ///< diff: [B, H, L, D] and [B, H, Lk, D]
  at::Tensor v2 = {};                    ///< dipole: [B, H, Lk, Dv]
  at::Tensor w_plus = {}, w_minus = {};  ///< [H]; sda_weighted and dipole both, diff w_minus
};

/// The kind that the operator calls `name`: softmax, cog, sda, sda_weighted, dipole, diff, centered, softpick, softmax1, sigmoid.
/// Throws Error with the nearest name where there is none.
kernels::Kind find_operator_kind(std::string_view name);

/// Attention written with plain ATen operations and its autograd: the path that runs anywhere, on any dtype, and is differentiable twice.
/// s = scale * q k^T; the formula of each kind: formulas.h.
/// @param q  [B, H, L, D]; @param k [B, H, Lk, D]; @param v [B, H, Lk, Dv]; @param extras what the kind needs besides
/// @param scale  multiplies the scores; empty: 1 / sqrt(D)
/// @param causal key j is visible to query i iff j <= i + Lk - L; a row with no visible key gives 0
/// @return [B, H, L, Dv], q's dtype. bfloat16 and float16 are computed in float32 and rounded once at the end, under autocast too.
/// @throws Error for an unknown kind, or shapes or dtypes that do not fit each other. Stores the L x Lk weights.
at::Tensor eager_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::string_view kind,
                           std::optional<double> scale = std::nullopt, bool causal = false, const AttentionExtras& extras = {});

/// The same on a packed qkv [B, L, S, H, D], S = 3 (q, k, v) or, for dipole, 4 (q, k, v, v2). @return [B, L, H*D]
at::Tensor eager_attention_packed(const at::Tensor& qkv, std::string_view kind, std::optional<double> scale = std::nullopt, bool causal = false,
                                  const at::Tensor& w_plus = {}, const at::Tensor& w_minus = {});

}  // namespace uvit
