#include <ATen/ATen.h>

#include <cstdio>

#include "attention/operator.h"

/// The fused operator against the plain formula, forward.
int main() {
  const at::Tensor q = at::randn({1, 2, 33, 16}), k = at::randn({1, 2, 40, 16}), w = at::ones({2});
  const uvit::AttentionExtras extras{.w_plus = w, .w_minus = w};
  const at::Tensor fused = uvit::attention(q, k, k, "sda_weighted", std::nullopt, false, extras);
  const at::Tensor plain = uvit::eager_attention(q, k, k, "sda_weighted", std::nullopt, false, extras);
  const float error = (fused - plain).abs().max().item<float>();
  std::printf("largest difference %g\n", error);
  return error < 1e-5F ? 0 : 1;
}
