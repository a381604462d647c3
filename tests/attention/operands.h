#pragma once
#include <torch/torch.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "attention/eager.h"
#include "attention/operator.h"
#include "support/tensors.h"

namespace uvit::test {

inline std::vector<kernels::Kind> all_kinds() {
  std::vector<kernels::Kind> kinds;
  for (int i = 0; i < kernels::kKindCount; ++i) kinds.push_back(static_cast<kernels::Kind>(i));
  return kinds;
}

inline at::Tensor seeded(std::vector<std::int64_t> shape, std::uint64_t seed, at::ScalarType dtype = at::kDouble) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions().dtype(at::kDouble)).to(dtype);
}

struct Sizes {
  std::int64_t B = 1, H = 2, L = 4, Lk = 5, D = 8, Dv = 8;
};

/// What a call of the operator takes. The head weights are float32, or float64 with float64.
struct Operands {
  at::Tensor q, k, v;
  AttentionExtras extras;

  Operands() = default;
  Operands(kernels::Kind kind, const Sizes& s, std::uint64_t seed, at::ScalarType dtype = at::kDouble) {
    const at::ScalarType weights = dtype == at::kDouble ? at::kDouble : at::kFloat;
    q = seeded({s.B, s.H, s.L, s.D}, seed, dtype);
    k = seeded({s.B, s.H, s.Lk, s.D}, seed + 1, dtype);
    v = seeded({s.B, s.H, s.Lk, s.Dv}, seed + 2, dtype);
    if (has_second_scores(kind)) {
      extras.q2 = seeded({s.B, s.H, s.L, s.D}, seed + 3, dtype);
      extras.k2 = seeded({s.B, s.H, s.Lk, s.D}, seed + 4, dtype);
    }
    if (has_second_value(kind)) extras.v2 = seeded({s.B, s.H, s.Lk, s.Dv}, seed + 5, dtype);
    if (has_w_plus(kind)) extras.w_plus = seeded({s.H}, seed + 6, weights);
    if (has_w_minus(kind)) extras.w_minus = seeded({s.H}, seed + 7, weights);
  }

  std::vector<std::pair<std::string, at::Tensor*>> all() {
    std::vector<std::pair<std::string, at::Tensor*>> result;
    const std::vector<std::pair<std::string, at::Tensor*>> candidates = {{"q", &q},          {"k", &k},          {"v", &v},
                                                                         {"q2", &extras.q2}, {"k2", &extras.k2}, {"v2", &extras.v2},
                                                                         {"w_plus", &extras.w_plus}, {"w_minus", &extras.w_minus}};
    for (const auto& candidate : candidates) {
      if (candidate.second->defined()) result.push_back(candidate);
    }
    return result;
  }

  /// Copies that collect gradients.
  Operands leaves(at::ScalarType dtype) const {
    Operands copy = *this;
    for (auto& [name, tensor] : copy.all()) *tensor = tensor->detach().to(dtype).clone().set_requires_grad(true);
    return copy;
  }
};

using Results = std::map<std::string, at::Tensor>;
using AttentionCall = at::Tensor (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&, std::string_view, std::optional<double>, bool,
                                     const AttentionExtras&);

/// "out" and "dq", "dk", ... of one call.
inline Results run_attention(AttentionCall call, Operands leaves, std::string_view kind, const at::Tensor& dout, std::optional<double> scale = {},
                             bool causal = false) {
  const at::Tensor out = call(leaves.q, leaves.k, leaves.v, kind, scale, causal, leaves.extras);
  out.backward(dout.to(out.scalar_type()));
  Results results = {{"out", out.detach()}};
  for (const auto& [name, tensor] : leaves.all()) results.emplace("d" + name, tensor->grad());
  return results;
}

}  // namespace uvit::test
