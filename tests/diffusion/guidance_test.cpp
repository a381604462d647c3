#include <torch/torch.h>

#include "diffusion/guidance.h"
#include "diffusion/wrappers.h"
#include "io/safetensors.h"
#include "support/fixtures.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

/// A denoiser whose answers are given.
Denoiser fixed(const Prediction& prediction, int* calls = nullptr) {
  return [=](const at::Tensor&, const std::vector<double>&) {
    if (calls) ++*calls;
    return prediction;
  };
}

at::Tensor gaussian() { return torch::randn({2, 3, 4, 4}, at::kDouble); }

struct Case {
  std::unique_ptr<Schedule> schedule = make_schedule("vp_linear");
  at::Tensor x = gaussian();
  std::vector<double> t = {0.3, 0.7};
  Prediction c{gaussian(), gaussian()}, u{gaussian(), gaussian()};
  int calls = 0;

  Prediction guided(const GuidanceOptions& options) {
    return guide(fixed(c), pair_of(fixed(c), fixed(u, &calls)), *schedule, options)(x, t);
  }
  /// eps agrees with x0 at x.
  void check_consistent(const Prediction& p, const std::string& what) const {
    for (std::int64_t i = 0; i < 2; ++i) {
      const double time = t[static_cast<std::size_t>(i)];
      check_tensor(what, schedule->alpha(time) * p.x0[i] + schedule->sigma(time) * p.eps[i], x[i], 1e-10);
    }
  }
};

}  // namespace

TEST_CASE("guidance: scale 1 is the conditional model alone, 0 the unconditional one, and it is linear in between and beyond") {
  torch::manual_seed(2);
  Case test;
  const Prediction off = test.guided({});
  CHECK(test.calls == 0);
  CHECK(at::equal(off.x0, test.c.x0));
  CHECK(at::equal(off.eps, test.c.eps));
  for (const double scale : {0.0, 0.5, 1.4, 7.5}) {
    INFO("scale " << scale);
    const Prediction guided = test.guided({.scale = scale});
    check_tensor("x0", guided.x0, (1 - scale) * test.u.x0 + scale * test.c.x0, 1e-13);
    check_tensor("eps", guided.eps, (1 - scale) * test.u.eps + scale * test.c.eps, 1e-13);
  }
  CHECK(test.calls == 4);
}

TEST_CASE("guidance agrees with the official one, whose scale is ours minus 1") {
  const TensorFile file = read_safetensors(fixtures() / "diffusion_dpm_solver_pp.safetensors");
  const double scale = fixture_json("diffusion.json").at("cfg").at("scale");
  const at::Tensor cond = to_torch(file.at("cfg.cond")), uncond = to_torch(file.at("cfg.uncond")), reference = to_torch(file.at("cfg.combined"));
  const auto schedule = make_schedule("sd_discrete");
  const auto pair = pair_of(fixed({cond, cond}), fixed({uncond, uncond}));
  const Prediction guided = guide(fixed({cond, cond}), pair, *schedule, {.scale = scale + 1})(cond, {0.5, 0.5});
  check_tensor("cfg.combined", guided.eps, reference, 1e-6 * max_abs(reference));
}

TEST_CASE("a guidance interval acts on the samples whose noise level is inside, and calls nothing else where there is none") {
  torch::manual_seed(3);
  Case test;
  const auto level = [&](double t) { return test.schedule->sigma(t) / test.schedule->alpha(t); };
  const Prediction both = test.guided({.scale = 3}), one = test.guided({.scale = 3, .low = level(0.5)});
  CHECK(at::equal(one.x0[0], test.c.x0[0]));
  CHECK(at::equal(one.eps[0], test.c.eps[0]));
  CHECK(at::equal(one.x0[1], both.x0[1]));
  CHECK(at::equal(one.eps[1], both.eps[1]));
  test.calls = 0;
  CHECK(at::equal(test.guided({.scale = 3, .low = level(0.8)}).x0, test.c.x0));
  CHECK(at::equal(test.guided({.scale = 3, .high = level(0.2)}).x0, test.c.x0));
  CHECK(test.calls == 0);
  CHECK(at::equal(test.guided({.scale = 3, .low = level(0.3), .high = level(0.7)}).x0, both.x0));
}

TEST_CASE("guidance of the first channels leaves the others to the conditional model") {
  torch::manual_seed(4);
  Case test;
  const Prediction all = test.guided({.scale = 2.5}), two = test.guided({.scale = 2.5, .channels = 2});
  CHECK(at::equal(two.eps.narrow(1, 0, 2), all.eps.narrow(1, 0, 2)));
  CHECK(at::equal(two.eps.narrow(1, 2, 1), test.c.eps.narrow(1, 2, 1)));
  CHECK(at::equal(test.guided({.scale = 2.5, .channels = 3}).x0, all.x0));
}

TEST_CASE("rescaling gives the guided x0 the standard deviation of the conditional one, and eps follows") {
  torch::manual_seed(5);
  Case test;
  const auto deviation = [](const at::Tensor& x) { return x.flatten(1).std(1); };
  const at::Tensor plain = deviation(test.guided({.scale = 4}).x0), target = deviation(test.c.x0);
  for (const double share : {0.4, 1.0}) {
    const Prediction rescaled = test.guided({.scale = 4, .rescale = share});
    check_tensor("deviation", deviation(rescaled.x0), share * target + (1 - share) * plain, 1e-12);
    test.check_consistent(rescaled, "x_t");
  }
}

TEST_CASE("dynamic thresholding clamps to the quantile of a sample and divides by it, and leaves small images alone") {
  torch::manual_seed(6);
  Case test;
  test.c.x0 = gaussian() * at::tensor({0.1, 3.0}, at::kDouble).view({2, 1, 1, 1});
  const Prediction cut = threshold(fixed(test.c), *test.schedule, 0.9)(test.x, test.t);
  CHECK(at::equal(cut.x0[0], test.c.x0[0]));
  CHECK(cut.x0[1].abs().max().item<double>() == Approx(1));
  const double s = at::quantile(test.c.x0[1].abs().flatten(), 0.9).item<double>();
  CHECK((cut.x0[1].abs() == 1).sum().item<std::int64_t>() == (test.c.x0[1].abs() >= s).sum().item<std::int64_t>());
  test.check_consistent(cut, "x_t");
}

TEST_CASE("known pixels are answered with themselves; blending is linear") {
  torch::manual_seed(7);
  Case test;
  const at::Tensor known = torch::randn({1, 3, 4, 4}, at::kDouble), mask = torch::rand({1, 1, 4, 4}) < 0.5;
  const Prediction kept = keep_known(fixed(test.c), *test.schedule, known, mask)(test.x, test.t);
  CHECK(at::equal(kept.x0, at::where(mask, known, test.c.x0)));
  test.check_consistent(kept, "x_t");
  const at::Tensor share = at::tensor({0.0, 0.25}, at::kDouble).view({2, 1, 1, 1});
  const Prediction mixed = blend(fixed(test.c), fixed(test.u), share)(test.x, test.t);
  CHECK(at::equal(mixed.x0[0], test.c.x0[0]));
  check_tensor("mixed", mixed.eps[1], 0.75 * test.c.eps[1] + 0.25 * test.u.eps[1], 1e-13);
}
