#include <torch/torch.h>

#include "attention/eager.h"

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "attention/attention.h"
#include "core/error.h"
#include "core/name_table.h"

namespace uvit {
namespace {

std::string text_of(const at::Tensor& tensor) {
  return fmt::format("[{}] {}", fmt::join(tensor.sizes(), ", "), c10::toString(tensor.scalar_type()));
}

void check_shapes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const bool fit = q.dim() == 4 && k.dim() == 4 && v.dim() == 4 && q.size(0) == k.size(0) && q.size(0) == v.size(0) && q.size(1) == k.size(1) &&
                   q.size(1) == v.size(1) && q.size(3) == k.size(3) && k.size(2) == v.size(2) && q.size(3) > 0;
  const bool one_dtype = q.is_floating_point() && q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type();
  if (!fit || !one_dtype) {
    throw Error(fmt::format("attention: q {}, k {} and v {} do not fit: they must be [B, H, L, D], [B, H, Lk, D] and [B, H, Lk, Dv] of one floating dtype",
                            text_of(q), text_of(k), text_of(v)));
  }
}

/// [B, H, L, D] -> [B*H, L, D]: a view where the memory allows it, as for a slice of a packed, contiguous [3, B, H, L, D].
at::Tensor fold_heads(const at::Tensor& x, at::ScalarType dtype) {
  return x.to(dtype).reshape({x.size(0) * x.size(1), x.size(2), x.size(3)});
}

at::Tensor hide(const at::Tensor& scores, const at::Tensor& hidden) {
  return hidden.defined() ? scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()) : scores;
}

}  // namespace

at::Tensor softmax_weights(const at::Tensor& scores, const at::Tensor& hidden) { return at::softmax(hide(scores, hidden), -1); }

at::Tensor cog_weights(const at::Tensor& scores, const at::Tensor& hidden) {
  // |s| is written sign(s) * s: autograd then has d|s|/ds = sign(s) with the sign at hand, one pass less than the backward of abs, and 0 at s = 0.
  const at::Tensor sign = scores.detach().sign();
  return at::softmax(hide(scores * sign, hidden), -1) * sign;
}

at::Tensor eager_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::string_view kind, std::optional<double> scale, bool causal) {
  const AttentionKind& row = find_row(attention_kinds(), "attention kind", kind);
  check_shapes(q, k, v);
  const std::int64_t queries = q.size(2), keys = k.size(2);
  if (causal && queries > keys) {
    // The first L - Lk queries see no key: they give 0, and softmax never meets a row of -inf alone.
    const at::Tensor seeing = eager_attention(q.narrow(2, queries - keys, keys), k, v, kind, scale, causal);
    return at::constant_pad_nd(seeing, {0, 0, queries - keys, 0});
  }
  // Autocast would take the scores back to bfloat16, and with them the signs.
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const at::ScalarType dtype = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor queries_bh = fold_heads(q, dtype), keys_bh = fold_heads(k, dtype), values_bh = fold_heads(v, dtype);
  // alpha scales inside the product: no pass over L x Lk of its own. beta = 0 ignores the empty first argument.
  const double alpha = scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
  const at::Tensor scores = at::baddbmm(at::zeros({1, 1, 1}, queries_bh.options()), queries_bh, keys_bh.transpose(1, 2), 0, alpha);  // [B*H, L, Lk]
  at::Tensor hidden;
  if (causal) hidden = at::ones({queries, keys}, scores.options().dtype(at::kBool).requires_grad(false)).triu(keys - queries + 1);
  const at::Tensor out = at::bmm(row.weights(scores, hidden), values_bh);
  return out.view({q.size(0), q.size(1), queries, v.size(3)}).to(q.scalar_type());
}

}  // namespace uvit
