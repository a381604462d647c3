#include "tests/kernels/attention_case.h"

using namespace uvit::kernels;
using namespace uvit::test;

namespace {

double loss(Reference r) {
  r.forward();
  double sum = 0;
  for (std::size_t i = 0; i < r.o.size(); ++i) sum += r.o[i] * r.dout[i];
  return sum;
}

}  // namespace

TEST_CASE("reference: gradients are the finite differences of the loss") {
  for (int n = 0; n < kKindCount; ++n)
    for (bool causal : {false, true}) {
      Reference r = random_problem(static_cast<Kind>(n), {1, 2, 3, 4, 8, 8}, causal, Dtype::f32, 7);
      r.forward();
      r.backward();
      const std::pair<std::vector<double>*, std::vector<double>*> pairs[] = {
          {&r.q, &r.dq},   {&r.k, &r.dk},   {&r.v, &r.dv},           {&r.q2, &r.dq2},
          {&r.k2, &r.dk2}, {&r.v2, &r.dv2}, {&r.w_plus, &r.dw_plus}, {&r.w_minus, &r.dw_minus}};
      for (const auto& [input, gradient] : pairs) {
        std::vector<double> slopes;
        for (double& x : *input) {
          const double at = x, step = 1e-6;
          x = at + step;
          const double up = loss(r);
          x = at - step;
          const double down = loss(r);
          x = at;
          slopes.push_back((up - down) / (2 * step));
        }
        check_close(kind_name(r.kind), slopes, *gradient, 2e-8 * std::max(1.0, max_abs(*gradient)));
      }
    }
}

TEST_CASE("reference: a kind is what its formula says, by hand") {
  Reference r;
  r.B = r.H = r.L = 1, r.Lk = 2, r.D = r.Dv = 1;
  r.q = {1}, r.k = {2, -1}, r.v = {10, 100};
  const double e2 = std::exp(2.0), e1 = std::exp(1.0);
  auto output = [&](Kind kind) {
    r.kind = kind;
    r.forward();
    return r.o[0];
  };
  CHECK(output(Kind::softmax) == Approx((10 * e2 + 100 / e1) / (e2 + 1 / e1)));
  CHECK(output(Kind::cog) == Approx((10 * e2 - 100 * e1) / (e2 + e1)));
  CHECK(output(Kind::sda) == Approx((10 * e2 + 100 / e1) / (e2 + 1 / e1) - (10 / e2 + 100 * e1) / (1 / e2 + e1)));
  CHECK(output(Kind::centered) == Approx((10 * e2 + 100 / e1) / (e2 + 1 / e1) - 55));
  CHECK(output(Kind::softpick) == Approx(10 * (e2 - 1) / (e2 - 1 + 1 - 1 / e1 + 1e-8)));
  CHECK(output(Kind::softmax1) == Approx((10 * e2 + 100 / e1) / (1 + e2 + 1 / e1)));
  CHECK(output(Kind::sigmoid) == Approx(10 / (1 + 2 / e2) + 100 / (1 + 2 * e1)));
}
