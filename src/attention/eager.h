#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

namespace uvit {

/// Attention written with plain ATen operations and its autograd: the path that runs anywhere and on any dtype.
///   s = scale * q k^T;  softmax: softmax(s) v;  cog: [sign(s) * softmax(|s|)] v with sign(0) = 0, and d|s|/ds = sign(s)
/// @param q  [B, H, L, D]; @param k, v [B, H, Lk, D]
/// @param scale  multiplies the scores; empty: 1 / sqrt(D)
/// @param causal key j is visible to query i iff j <= i + Lk - L; a row with no visible key gives 0
/// @return [B, H, L, Dv], q's dtype. bfloat16 and float16 are computed in float32 and rounded once at the end, under autocast too.
/// @throws Error for an unknown kind, or shapes or dtypes that do not fit each other. Stores the L x Lk weights. Source: arXiv:2411.07176.
at::Tensor eager_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::string_view kind,
                           std::optional<double> scale = std::nullopt, bool causal = false);

/// softmax(s) over keys; see AttentionKind::weights.
at::Tensor softmax_weights(const at::Tensor& scores, const at::Tensor& hidden);
/// sign(s) * softmax(|s|) over keys, sign(0) = 0.
at::Tensor cog_weights(const at::Tensor& scores, const at::Tensor& hidden);

}  // namespace uvit
