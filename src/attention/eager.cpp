#include <torch/torch.h>

#include "attention/eager.h"

#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>

#include <cmath>
#include <string>
#include <vector>

#include "attention/formulas.h"
#include "core/error.h"
#include "core/name_table.h"

namespace uvit {
namespace {

/// Under torch.compile with changing shapes this fixes the size: the plain path is compiled anew for each.
std::int64_t size_of(const at::Tensor& x, std::int64_t dim) { return x.sym_size(dim).guard_int(__FILE__, __LINE__); }

std::string text_of(const at::Tensor& tensor) {
  return fmt::format("[{}] {}", fmt::join(tensor.sizes(), ", "), c10::toString(tensor.scalar_type()));
}

void check_shapes(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const bool four = q.dim() == 4 && k.dim() == 4 && v.dim() == 4;
  const bool fit = four && size_of(q, 0) == size_of(k, 0) && size_of(q, 0) == size_of(v, 0) && size_of(q, 1) == size_of(k, 1) &&
                   size_of(q, 1) == size_of(v, 1) && size_of(q, 3) == size_of(k, 3) && size_of(k, 2) == size_of(v, 2) && size_of(q, 3) > 0;
  const bool one_dtype = q.is_floating_point() && q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type();
  if (!fit || !one_dtype) {
    throw Error(fmt::format("attention: q {}, k {} and v {} do not fit: give [B, H, L, D], [B, H, Lk, D] and [B, H, Lk, Dv] of one floating dtype",
                            text_of(q), text_of(k), text_of(v)));
  }
}

void check_extras(kernels::Kind kind, const AttentionExtras& extras) {
  const auto check = [kind](const char* name, const at::Tensor& given, bool needed) {
    if (given.defined() == needed) return;
    throw Error(fmt::format("attention: kind '{}' {} {}", kernels::kind_name(kind), needed ? "needs" : "takes no", name));
  };
  check("q2", extras.q2, has_second_scores(kind));
  check("k2", extras.k2, has_second_scores(kind));
  check("v2", extras.v2, has_second_value(kind));
  check("w_plus", extras.w_plus, has_w_plus(kind));
  check("w_minus", extras.w_minus, has_w_minus(kind));
}

/// [B, H, L, D] -> [B*H, L, D]: a view where the memory allows it, as for a slice of a packed, contiguous [3, B, H, L, D].
at::Tensor fold_heads(const at::Tensor& x, at::ScalarType dtype) {
  return x.to(dtype).reshape({size_of(x, 0) * size_of(x, 1), size_of(x, 2), size_of(x, 3)});
}

/// [H] -> [B*H, 1, 1]
at::Tensor fold_head_weights(const at::Tensor& w, std::int64_t batch, at::ScalarType dtype) {
  return w.to(dtype).view({1, -1}).expand({batch, size_of(w, 0)}).reshape({-1, 1, 1});
}

/// scale * q k^T, [B*H, L, Lk]. alpha scales inside the product: no pass over L x Lk of its own. beta = 0 ignores the empty first argument.
at::Tensor scores_of(const at::Tensor& q, const at::Tensor& k, double scale) {
  return at::baddbmm(at::zeros({1, 1, 1}, q.options()), q, k.transpose(1, 2), 0, scale);
}

at::ScalarType compute_dtype(const at::Tensor& x) { return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

/// eager_attention where every query sees a key.
at::Tensor attend_visible(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, kernels::Kind kind, double scale, bool causal,
                          const AttentionExtras& extras) {
  const at::ScalarType dtype = compute_dtype(q);
  const std::int64_t batch = size_of(q, 0), queries = size_of(q, 2), keys = size_of(k, 2);
  PlainOperands operands;
  operands.scores = scores_of(fold_heads(q, dtype), fold_heads(k, dtype), scale);
  operands.v = fold_heads(v, dtype);
  if (extras.q2.defined()) operands.scores2 = scores_of(fold_heads(extras.q2, dtype), fold_heads(extras.k2, dtype), scale);
  if (extras.v2.defined()) operands.v2 = fold_heads(extras.v2, dtype);
  if (extras.w_plus.defined()) operands.w_plus = fold_head_weights(extras.w_plus, batch, dtype);
  if (extras.w_minus.defined()) operands.w_minus = fold_head_weights(extras.w_minus, batch, dtype);
  if (causal) operands.hidden = at::ones({queries, keys}, operands.scores.options().dtype(at::kBool).requires_grad(false)).triu(keys - queries + 1);
  // Without keys there are no weights to normalise: the product over none is 0.
  const at::Tensor out = keys == 0 ? at::bmm(operands.scores, operands.v) : plain_formula(kind, operands);
  return out.view({batch, size_of(q, 1), queries, size_of(v, 3)}).to(q.scalar_type());
}

}  // namespace

kernels::Kind find_operator_kind(std::string_view name) {
  std::vector<std::string> names;
  for (int i = 0; i < kernels::kKindCount; ++i) {
    const auto kind = static_cast<kernels::Kind>(i);
    if (name == kernels::kind_name(kind)) return kind;
    names.emplace_back(kernels::kind_name(kind));
  }
  throw_unknown_name("attention kind", name, names);
}

at::Tensor eager_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::string_view kind, std::optional<double> scale,
                           bool causal, const AttentionExtras& extras) {
  const kernels::Kind found = find_operator_kind(kind);
  check_shapes(q, k, v);
  check_extras(found, extras);
  // Autocast would take the scores back to bfloat16, and with them the signs.
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const double factor = scale.value_or(1.0 / std::sqrt(static_cast<double>(size_of(q, 3))));
  const std::int64_t blind = causal ? std::max<std::int64_t>(size_of(q, 2) - size_of(k, 2), 0) : 0;
  if (blind == 0) return attend_visible(q, k, v, found, factor, causal, extras);
  // The first L - Lk queries see no key: they give 0, and softmax never meets a row of -inf alone.
  AttentionExtras seeing = extras;
  if (seeing.q2.defined()) seeing.q2 = seeing.q2.narrow(2, blind, size_of(k, 2));
  return at::constant_pad_nd(attend_visible(q.narrow(2, blind, size_of(k, 2)), k, v, found, factor, causal, seeing), {0, 0, blind, 0});
}

at::Tensor eager_attention_packed(const at::Tensor& qkv, std::string_view kind, std::optional<double> scale, bool causal, const at::Tensor& w_plus,
                                  const at::Tensor& w_minus) {
  // One copy packs the parts so that heads fold into the batch of bmm; taken apart by unbind, whose backward is one stack and not padded sums.
  const at::Tensor packed = qkv.permute({2, 0, 3, 1, 4}).to(compute_dtype(qkv)).contiguous();  // [S, B, H, L, D]
  const std::vector<at::Tensor> parts = packed.unbind(0);
  AttentionExtras extras{.q2 = {}, .k2 = {}, .v2 = {}, .w_plus = w_plus, .w_minus = w_minus};
  if (parts.size() == 4) extras.v2 = parts[3];
  const at::Tensor out = eager_attention(parts[0], parts[1], parts[2], kind, scale, causal, extras);  // [B, H, L, D]
  return out.transpose(1, 2).reshape({size_of(qkv, 0), size_of(qkv, 1), size_of(qkv, 3) * size_of(qkv, 4)}).to(qkv.scalar_type());
}

}  // namespace uvit
