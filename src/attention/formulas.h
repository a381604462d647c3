#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/attention/kinds.h"

namespace uvit {

/// What a kind's plain formula works on; N = B * H, everything float32 or float64.
struct PlainOperands {
  at::Tensor scores;           ///< [N, L, Lk]; Lk > 0 and every row sees a key
  at::Tensor scores2;          ///< diff: the scores of q2 and k2
  at::Tensor hidden;           ///< bool [L, Lk], true where a key is not visible; undefined: all are visible
  at::Tensor v, v2;            ///< [N, Lk, Dv]
  at::Tensor w_plus, w_minus;  ///< [N, 1, 1]
};

/// The output of the kind, [N, L, Dv], in plain ATen operations; formulas and sources: the table in kinds.cpp. Finite for scores of any size.
at::Tensor plain_formula(kernels::Kind kind, const PlainOperands& operands);

}  // namespace uvit
