#include <torch/torch.h>

#include "attention/eager.h"

#include <ATen/autocast_mode.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "attention/operands.h"
#include "core/error.h"
#include "kernels/attention/reference.h"

using namespace uvit;
using namespace uvit::test;

namespace {

at::Tensor to_tensor(const std::vector<double>& values, const at::Tensor& like) {
  return at::tensor(values, at::TensorOptions().dtype(at::kDouble)).view(like.sizes());
}

/// Output and gradients from loops in double that share nothing with ATen.
Results run_reference(kernels::Kind kind, Operands operands, const at::Tensor& dout, bool causal) {
  kernels::Reference r;
  r.kind = kind;
  r.causal = causal;
  r.B = operands.q.size(0), r.H = operands.q.size(1), r.L = operands.q.size(2), r.D = operands.q.size(3);
  r.Lk = operands.k.size(2), r.Dv = operands.v.size(3);
  r.scale = 1 / std::sqrt(static_cast<double>(r.D));
  const auto values = [](const at::Tensor& x) { return x.defined() ? values_of(x) : std::vector<double>(); };
  r.q = values(operands.q), r.k = values(operands.k), r.v = values(operands.v), r.dout = values(dout);
  r.q2 = values(operands.extras.q2), r.k2 = values(operands.extras.k2), r.v2 = values(operands.extras.v2);
  r.w_plus = values(operands.extras.w_plus), r.w_minus = values(operands.extras.w_minus);
  r.forward();
  r.backward();
  const std::map<std::string, std::vector<double>*> gradients = {{"q", &r.dq},   {"k", &r.dk},   {"v", &r.dv},           {"q2", &r.dq2},
                                                                 {"k2", &r.dk2}, {"v2", &r.dv2}, {"w_plus", &r.dw_plus}, {"w_minus", &r.dw_minus}};
  Results results = {{"out", to_tensor(r.o, dout)}};
  for (const auto& [name, tensor] : operands.all()) results.emplace("d" + name, to_tensor(*gradients.at(name), *tensor));
  return results;
}

}  // namespace

TEST_CASE("every kind: plain ATen operations agree with loops in double, output and gradients, causal or not, with keys != queries") {
  for (const kernels::Kind kind : all_kinds()) {
    for (const Sizes& sizes :
         {Sizes{2, 3, 7, 7, 8, 8}, Sizes{1, 2, 4, 9, 5, 3}, Sizes{1, 2, 9, 4, 8, 16}, Sizes{1, 1, 1, 1, 8, 8}, Sizes{1, 1, 2, 1, 3, 3}}) {
      for (const bool causal : {false, true}) {
        INFO(kernels::kind_name(kind) << (causal ? " causal" : "") << " L " << sizes.L << " Lk " << sizes.Lk);
        const Operands operands(kind, sizes, 1);
        const at::Tensor dout = seeded({sizes.B, sizes.H, sizes.L, sizes.Dv}, 20);
        const Results ours = run_attention(eager_attention, operands.leaves(at::kDouble), kernels::kind_name(kind), dout, {}, causal);
        for (const auto& [name, reference] : run_reference(kind, operands, dout, causal)) {
          check_tensor(name, ours.at(name), reference, 1e-12 * std::max(1.0, max_abs(reference)));
        }
      }
    }
  }
}

TEST_CASE("every kind: gradients agree with finite differences, away from scores of 0") {
  for (const kernels::Kind kind : all_kinds()) {
    INFO(kernels::kind_name(kind));
    const Sizes sizes;
    const at::Tensor dout = seeded({sizes.B, sizes.H, sizes.L, sizes.Dv}, 4);
    Operands operands = Operands(kind, sizes, 1).leaves(at::kDouble);
    const auto loss = [&] {
      return (eager_attention(operands.q, operands.k, operands.v, kernels::kind_name(kind), {}, false, operands.extras) * dout).sum();
    };
    REQUIRE(at::matmul(operands.q, operands.k.transpose(2, 3)).abs().min().item<double>() > 1e-3);
    loss().backward();
    const torch::NoGradGuard no_grad;
    for (const auto& [name, tensor] : operands.all()) {
      at::Tensor numeric = at::zeros_like(*tensor), flat = tensor->view(-1);
      for (std::int64_t i = 0; i < flat.numel(); ++i) {
        const double value = flat[i].item<double>(), step = 1e-6;
        flat[i] = value + step;
        const double above = loss().item<double>();
        flat[i] = value - step;
        numeric.view(-1)[i] = (above - loss().item<double>()) / (2 * step);
        flat[i] = value;
      }
      check_tensor("d" + name, tensor->grad(), numeric, 1e-8);
    }
  }
}

TEST_CASE("every kind: causal rows are those rows alone against the keys they see, and rows that see no key give 0") {
  for (const kernels::Kind kind : all_kinds()) {
    INFO(kernels::kind_name(kind));
    const auto run = [kind](const Operands& o, bool causal) {
      return eager_attention(o.q, o.k, o.v, kernels::kind_name(kind), std::nullopt, causal, o.extras);
    };
    Operands few = Operands(kind, Sizes{2, 1, 5, 3, 8, 4}, 1).leaves(at::kDouble);
    const at::Tensor out = run(few, true);
    CHECK(out.sizes() == at::IntArrayRef({2, 1, 5, 4}));
    CHECK(out.narrow(2, 0, 2).eq(0).all().item<bool>());
    out.sum().backward();
    CHECK(few.q.grad().narrow(2, 0, 2).eq(0).all().item<bool>());
    if (kind == kernels::Kind::sigmoid) continue;  // its n is Lk, not the number of visible keys
    const Operands many(kind, Sizes{2, 1, 5, 7, 8, 4}, 11);
    const at::Tensor all = run(many, true);
    for (std::int64_t i = 0; i < 5; ++i) {
      Operands row = many;
      for (auto& [name, tensor] : row.all()) {
        if (name == "q" || name == "q2") *tensor = tensor->narrow(2, i, 1);
        if (name == "k" || name == "k2" || name == "v" || name == "v2") *tensor = tensor->narrow(2, 0, i + 7 - 5 + 1);
      }
      check_tensor("row", all.narrow(2, i, 1), run(row, false), 1e-14);
    }
  }
}

TEST_CASE("every kind: without keys the output is 0, and scores of 1e4 or all 0 leave everything finite") {
  for (const kernels::Kind kind : all_kinds()) {
    INFO(kernels::kind_name(kind));
    const Operands none(kind, Sizes{1, 2, 3, 0, 8, 8}, 1);
    CHECK(eager_attention(none.q, none.k, none.v, kernels::kind_name(kind), {}, false, none.extras).eq(0).all().item<bool>());
    for (const double factor : {1e4, -1e4, 0.0}) {
      Operands operands(kind, Sizes{1, 2, 5, 6, 8, 8}, 1);
      operands.q = operands.q * factor;
      const Results results = run_attention(eager_attention, operands.leaves(at::kFloat), kernels::kind_name(kind), seeded({1, 2, 5, 8}, 4));
      for (const auto& [name, value] : results) {
        INFO(name << " " << factor);
        CHECK(value.isfinite().all().item<bool>());
      }
    }
  }
}

TEST_CASE("cog: a score of 0 adds nothing but still counts in the denominator") {
  const at::Tensor q = at::tensor({1.0}).view({1, 1, 1, 1});
  const at::Tensor k = at::tensor({0.0, -2.0}).view({1, 1, 2, 1}), v = at::tensor({5.0, 1.0}).view({1, 1, 2, 1});
  const double expected = -std::exp(2.0) / (1 + std::exp(2.0));
  CHECK(eager_attention(q, k, v, "cog", 1.0).item<double>() == Approx(expected).epsilon(1e-6));
}

TEST_CASE("every kind: reduced precision computes in float32 and rounds once, under autocast too") {
  for (const kernels::Kind kind : all_kinds()) {
    for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
      INFO(kernels::kind_name(kind) << " " << c10::toString(dtype));
      const Operands operands(kind, Sizes{2, 3, 31, 31, 16, 16}, 1, dtype);
      const Operands wide = operands.leaves(at::kDouble);
      const at::Tensor reference = eager_attention(wide.q, wide.k, wide.v, kernels::kind_name(kind), {}, false, wide.extras).detach();
      at::autocast::set_autocast_enabled(at::kCPU, true);
      const at::Tensor cast = eager_attention(operands.q, operands.k, operands.v, kernels::kind_name(kind), {}, false, operands.extras);
      at::autocast::set_autocast_enabled(at::kCPU, false);
      const double half_ulp = dtype == at::kBFloat16 ? 1.0 / 256 : 1.0 / 2048;
      CHECK(cast.scalar_type() == dtype);
      check_tensor("out", cast, reference, half_ulp * max_abs(reference) + 1e-5);
    }
  }
}

TEST_CASE("plain attention refuses an unknown kind with the nearest name, tensors that do not fit, and extras that the kind has not") {
  const at::Tensor x = at::zeros({1, 1, 2, 8}), w = at::ones({1});
  CHECK_THROWS_WITH(eager_attention(x, x, x, "cogg"), Catch::Contains("'cogg'") && Catch::Contains("did you mean 'cog'"));
  CHECK_THROWS_WITH(eager_attention(x, at::zeros({1, 1, 2, 4}), x, "cog"), Catch::Contains("[1, 1, 2, 4]"));
  CHECK_THROWS_AS(eager_attention(x, x, x.to(at::kDouble), "softmax"), Error);
  CHECK_THROWS_AS(eager_attention(x[0], x[0], x[0], "softmax"), Error);
  CHECK_THROWS_WITH(eager_attention(x, x, x, "diff"), Catch::Contains("'diff' needs q2"));
  CHECK_THROWS_WITH(eager_attention(x, x, x, "cog", {}, false, {.w_plus = w}), Catch::Contains("takes no w_plus"));
}
