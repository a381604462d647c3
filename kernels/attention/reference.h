#pragma once
#include <vector>

#include "kernels/attention/kinds.h"

namespace uvit::kernels {

/// Attention in double, all tensors contiguous [B, H, length, width]: the oracle of the fused kernels, for tests.
struct Reference {
  using Values = std::vector<double>;
  Kind kind = Kind::softmax;
  bool causal = false;
  double scale = 1;
  std::int64_t B = 0, H = 0, L = 0, Lk = 0, D = 0, Dv = 0;
  Values q, k, v, q2, k2, v2, w_plus, w_minus;          ///< inputs; the last five only where the kind has them
  Values dout;                                          ///< input of backward
  Values o;                                             ///< result of forward
  Values dq, dk, dv, dq2, dk2, dv2, dw_plus, dw_minus;  ///< results of backward

  void forward();
  void backward();
};

}  // namespace uvit::kernels
