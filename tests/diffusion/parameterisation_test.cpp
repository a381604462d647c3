#include <torch/torch.h>

#include "core/error.h"
#include "diffusion/loss.h"
#include "io/safetensors.h"
#include "model/uvit.h"
#include "support/fixtures.h"
#include "support/tensors.h"
#include "support/uvit_cases.h"

using namespace uvit;
using namespace uvit::test;

namespace {

const std::vector<double> kTimes = {0.001, 0.3, 0.8, 0.99};

struct Sample {
  at::Tensor x0, eps, xt, alpha, sigma;
};

Sample make_sample(const Schedule& schedule) {
  torch::manual_seed(1);
  Sample s;
  s.x0 = torch::randn({4, 3, 5, 6}, at::kDouble);
  s.eps = torch::randn({4, 3, 5, 6}, at::kDouble);
  std::vector<double> alpha, sigma;
  for (const double t : kTimes) {
    alpha.push_back(schedule.alpha(t));
    sigma.push_back(schedule.sigma(t));
  }
  s.alpha = per_sample(alpha, s.x0);
  s.sigma = per_sample(sigma, s.x0);
  s.xt = s.alpha * s.x0 + s.sigma * s.eps;
  return s;
}

/// A denoiser whose answers are given.
Denoiser fixed(const Prediction& prediction, int* calls = nullptr) {
  return [=](const at::Tensor&, const std::vector<double>&) {
    if (calls) ++*calls;
    return prediction;
  };
}

}  // namespace

TEST_CASE("what a network is trained to predict reads back as x0 and eps, for every parameterisation and schedule") {
  for (const ScheduleRow& row : schedule_table()) {
    const auto schedule = make_schedule(row.name);
    const Sample s = make_sample(*schedule);
    check_tensor("add_noise", add_noise(s.x0, s.eps, kTimes, *schedule), s.xt, 1e-15);
    for (const Parameterisation& p : parameterisation_table()) {
      INFO(row.name << " " << p.name);
      const Prediction read = p.read(p.target(s.x0, s.eps, s.alpha, s.sigma), s.xt, s.alpha, s.sigma);
      check_tensor("x0", read.x0, s.x0, 1e-10);
      check_tensor("eps", read.eps, s.eps, 1e-10);
      const Prediction any = p.read(s.x0 * 0.7 - s.eps, s.xt, s.alpha, s.sigma);
      check_tensor("x_t of any output", s.alpha * any.x0 + s.sigma * any.eps, s.xt, 1e-10);
    }
  }
}

TEST_CASE("a perfect network has no loss, and the denoiser calls it at the network's time") {
  for (const ScheduleRow& row : schedule_table()) {
    const auto schedule = make_schedule(row.name);
    const Sample s = make_sample(*schedule);
    for (const Parameterisation& p : parameterisation_table()) {
      INFO(row.name << " " << p.name);
      at::Tensor seen_time;
      const Network perfect = [&](const at::Tensor&, const at::Tensor& time) {
        seen_time = time;
        return p.target(s.x0, s.eps, s.alpha, s.sigma);
      };
      check_tensor("loss", simple_loss(perfect, s.x0, s.eps, kTimes, *schedule, p), torch::zeros({4}), 1e-28);
      const Prediction prediction = make_denoiser(perfect, *schedule, p)(s.xt, kTimes);
      check_tensor("x0", prediction.x0, s.x0, 1e-10);
      check_tensor("eps", prediction.eps, s.eps, 1e-10);
      REQUIRE(seen_time.sizes() == at::IntArrayRef{4});
      CHECK(seen_time.scalar_type() == at::kFloat);
      for (std::size_t i = 0; i < kTimes.size(); ++i) {
        CHECK(seen_time[static_cast<std::int64_t>(i)].item<float>() == static_cast<float>(schedule->network_time(kTimes[i])));
      }
    }
  }
}

TEST_CASE("the loss is the mean square a sample, in float32 for a network that answers in bfloat16") {
  const auto schedule = make_schedule("vp_linear");
  const Sample s = make_sample(*schedule);
  const Parameterisation& noise = find_parameterisation("eps");
  const at::Tensor offsets = at::tensor({0.5, 1.0, 2.0, 4.0}, at::kDouble);
  const Network off_by = [&](const at::Tensor&, const at::Tensor&) { return s.eps + offsets.view({4, 1, 1, 1}); };
  check_tensor("loss", simple_loss(off_by, s.x0, s.eps, kTimes, *schedule, noise), offsets.square(), 1e-13);

  const Network rounded = [&](const at::Tensor& xt, const at::Tensor&) {
    CHECK(xt.scalar_type() == at::kFloat);
    return s.eps.to(at::kBFloat16);
  };
  const at::Tensor eps = s.eps.to(at::kFloat);
  const at::Tensor loss = simple_loss(rounded, s.x0.to(at::kFloat), eps, kTimes, *schedule, noise);
  CHECK(loss.scalar_type() == at::kFloat);
  const at::Tensor by_hand = (eps.to(at::kDouble) - s.eps.to(at::kBFloat16).to(at::kDouble)).square().mean({1, 2, 3});
  REQUIRE(max_abs(by_hand) > 0);
  check_tensor("loss in bfloat16", loss, by_hand, 1e-6 * max_abs(by_hand));
}

TEST_CASE("guidance: scale 1 is the conditional model alone, 0 the unconditional one, and it is linear in between and beyond") {
  torch::manual_seed(2);
  const auto random = [] { return torch::randn({2, 3, 4, 4}, at::kDouble); };
  const Prediction c{random(), random()}, u{random(), random()};
  const at::Tensor x = random();
  const std::vector<double> t = {0.5, 0.5};
  int calls = 0;
  const Prediction off = guide(fixed(c), fixed(u, &calls), 1.0)(x, t);
  CHECK(calls == 0);
  CHECK(at::equal(off.x0, c.x0));
  CHECK(at::equal(off.eps, c.eps));
  for (const double scale : {0.0, 0.5, 1.4, 7.5}) {
    INFO("scale " << scale);
    const Prediction guided = guide(fixed(c), fixed(u, &calls), scale)(x, t);
    check_tensor("x0", guided.x0, (1 - scale) * u.x0 + scale * c.x0, 1e-13);
    check_tensor("eps", guided.eps, (1 - scale) * u.eps + scale * c.eps, 1e-13);
  }
  CHECK(calls == 4);
}

TEST_CASE("guidance agrees with the official one, whose scale is ours minus 1") {
  const TensorFile file = read_safetensors(fixtures() / "diffusion_dpm_solver_pp.safetensors");
  const double scale = fixture_json("diffusion.json").at("cfg").at("scale");
  const at::Tensor cond = to_torch(file.at("cfg.cond")), uncond = to_torch(file.at("cfg.uncond")), reference = to_torch(file.at("cfg.combined"));
  const Prediction guided = guide(fixed({cond, cond}), fixed({uncond, uncond}), scale + 1)(cond, {0.5, 0.5});
  check_tensor("cfg.combined", guided.eps, reference, 1e-6 * max_abs(reference));
}

TEST_CASE("readings of a real network agree with the official ScoreModel") {
  const TensorFile file = read_safetensors(fixtures() / "diffusion_euler.safetensors");
  const auto schedule = make_schedule("vp_linear");
  const std::vector<double> t = file.at("convert.t").to_double();
  const at::Tensor x = to_torch(file.at("x_init"));
  for (const UViTCase& test : uvit_cases()) {
    if (test.name != "uvit_uncond") continue;
    const torch::NoGradGuard no_grad;
    UViT model(test.options);
    load_parameters(model, read_safetensors(fixtures() / (test.name + "_state.safetensors")), test.name);
    std::vector<double> to_score;
    for (const double time : t) to_score.push_back(-1 / schedule->sigma(time));
    for (const auto& [official, ours] : {std::pair{"noisepred", "eps"}, std::pair{"x0pred", "x0"}}) {
      const auto network = [&](const at::Tensor& xt, const at::Tensor& time) { return model.forward(xt, time); };
      const Prediction prediction = make_denoiser(network, *schedule, find_parameterisation(ours))(x, t);
      const std::string prefix = std::string("convert.") + official + ".";
      const auto check = [&](const std::string& what, const at::Tensor& value) {
        const at::Tensor reference = to_torch(file.at(prefix + what));
        check_tensor(prefix + what, value, reference, 1e-5 * max_abs(reference));
      };
      check("noise_pred", prediction.eps);
      check("x0_pred", prediction.x0);
      check("score", prediction.eps * per_sample(to_score, x));
    }
    return;
  }
  FAIL("the network of diffusion_euler is not among the cases of uvit.json");
}

TEST_CASE("an unknown prediction names those there are") { CHECK_THROWS_WITH(find_parameterisation("epsilon"), Catch::Contains("eps")); }
