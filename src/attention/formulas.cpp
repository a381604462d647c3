#include <torch/torch.h>

#include "attention/formulas.h"

#include <array>
#include <cmath>
#include <limits>

namespace uvit {
namespace {

at::Tensor hide(const at::Tensor& scores, const at::Tensor& hidden, double value = -std::numeric_limits<double>::infinity()) {
  return hidden.defined() ? scores.masked_fill(hidden, value) : scores;
}

at::Tensor softmax_of(const at::Tensor& scores, const at::Tensor& hidden) { return at::softmax(hide(scores, hidden), -1); }
at::Tensor plus_weights(const PlainOperands& o) { return softmax_of(o.scores, o.hidden); }
at::Tensor minus_weights(const PlainOperands& o) { return softmax_of(-o.scores, o.hidden); }

at::Tensor softmax_formula(const PlainOperands& o) { return at::bmm(plus_weights(o), o.v); }

at::Tensor cog_formula(const PlainOperands& o) {
  // |s| is written sign(s) * s: autograd then has d|s|/ds = sign(s) with the sign at hand, one pass less than the backward of abs, and 0 at s = 0.
  const at::Tensor sign = o.scores.detach().sign();
  return at::bmm(softmax_of(o.scores * sign, o.hidden) * sign, o.v);
}

at::Tensor sda_formula(const PlainOperands& o) { return at::bmm(plus_weights(o) - minus_weights(o), o.v); }

at::Tensor sda_weighted_formula(const PlainOperands& o) { return at::bmm(o.w_plus * plus_weights(o) - o.w_minus * minus_weights(o), o.v); }

at::Tensor dipole_formula(const PlainOperands& o) { return o.w_plus * at::bmm(plus_weights(o), o.v) + o.w_minus * at::bmm(minus_weights(o), o.v2); }

at::Tensor diff_formula(const PlainOperands& o) { return at::bmm(plus_weights(o) - o.w_minus * softmax_of(o.scores2, o.hidden), o.v); }

at::Tensor centered_formula(const PlainOperands& o) {
  if (!o.hidden.defined()) return at::bmm(plus_weights(o), o.v) - o.v.mean(1, true);
  const at::Tensor visible = o.hidden.logical_not().to(o.scores.scalar_type());  // [L, Lk]
  return at::bmm(plus_weights(o) - visible / visible.sum(-1, true), o.v);
}

/// e^(s - m) with m = max(0, row maximum), 0 for hidden keys, and e^-m: nothing overflows.
/// m is a constant to autograd, as the weights do not depend on it.
struct ShiftedExp {
  explicit ShiftedExp(const PlainOperands& o) {
    const at::Tensor scores = hide(o.scores, o.hidden), shift = scores.detach().amax(-1, true).clamp_min(0);
    value = at::exp(scores - shift);
    unit = at::exp(-shift);
  }
  at::Tensor value, unit;  // [N, L, Lk], [N, L, 1]
};

at::Tensor softpick_formula(const PlainOperands& o) {
  const ShiftedExp e(o);
  const at::Tensor excess = hide(e.value - e.unit, o.hidden, 0);
  return at::bmm(at::relu(excess) / (excess.abs().sum(-1, true) + 1e-8 * e.unit), o.v);
}

at::Tensor softmax1_formula(const PlainOperands& o) {
  const ShiftedExp e(o);
  return at::bmm(e.value / (e.value.sum(-1, true) + e.unit), o.v);
}

at::Tensor sigmoid_formula(const PlainOperands& o) {
  const auto keys = static_cast<double>(o.v.sym_size(1).guard_int(__FILE__, __LINE__));
  return at::bmm(at::sigmoid(hide(o.scores - std::log(keys), o.hidden)), o.v);
}

}  // namespace

at::Tensor plain_formula(kernels::Kind kind, const PlainOperands& operands) {
  using Formula = at::Tensor (*)(const PlainOperands&);
  static constexpr std::array<Formula, kernels::kKindCount> formulas = {softmax_formula,  cog_formula,      sda_formula,      sda_weighted_formula,
                                                                        dipole_formula,   diff_formula,     centered_formula, softpick_formula,
                                                                        softmax1_formula, sigmoid_formula};  // in the order of kernels::Kind
  return formulas[static_cast<std::size_t>(kind)](operands);
}

}  // namespace uvit
