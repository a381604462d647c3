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
  at::Tensor x0, eps, xt;
  Level level;
};

Sample make_sample(const Schedule& schedule) {
  torch::manual_seed(1);
  Sample s;
  s.x0 = torch::randn({4, 3, 5, 6}, at::kDouble);
  s.eps = torch::randn({4, 3, 5, 6}, at::kDouble);
  s.level = level_of(kTimes, schedule, s.x0);
  s.xt = s.level.alpha * s.x0 + s.level.sigma * s.eps;
  return s;
}

}  // namespace

TEST_CASE("what a network is trained to predict reads back as x0 and eps, for every parameterisation and schedule") {
  for (const ScheduleRow& row : schedule_table()) {
    const auto schedule = make_schedule(row.name);
    const Sample s = make_sample(*schedule);
    check_tensor("add_noise", add_noise(s.x0, s.eps, kTimes, *schedule), s.xt, 1e-15);
    for (const Parameterisation& p : parameterisation_table()) {
      INFO(row.name << " " << p.name);
      const Prediction read = p.read(p.target(s.x0, s.eps, s.level), s.xt, s.level);
      check_tensor("x0", read.x0, s.x0, 1e-10);
      check_tensor("eps", read.eps, s.eps, 1e-10);
      const Prediction any = p.read(s.x0 * 0.7 - s.eps, s.xt, s.level);
      check_tensor("x_t of any output", s.level.alpha * any.x0 + s.level.sigma * any.eps, s.xt, 1e-10);
    }
  }
}

TEST_CASE("a perfect network has no loss, and the denoiser calls it at the network's time") {
  for (const ScheduleRow& row : schedule_table()) {
    const auto schedule = make_schedule(row.name);
    const Sample s = make_sample(*schedule);
    for (const Parameterisation& p : parameterisation_table()) {
      INFO(row.name << " " << p.name);
      at::Tensor seen_time, seen;
      const Network perfect = [&](const at::Tensor& x, const at::Tensor& time) {
        seen_time = time;
        seen = x;
        return p.target(s.x0, s.eps, s.level);
      };
      check_tensor("loss", diffusion_loss(perfect, s.x0, s.eps, kTimes, *schedule, p), torch::zeros({4}), 1e-28);
      const Prediction prediction = make_denoiser(perfect, *schedule, p)(s.xt, kTimes);
      check_tensor("x0", prediction.x0, s.x0, 1e-10);
      check_tensor("eps", prediction.eps, s.eps, 1e-10);
      REQUIRE(seen_time.sizes() == at::IntArrayRef{4});
      CHECK(seen_time.scalar_type() == at::kFloat);
      for (std::int64_t i = 0; i < 4; ++i) CHECK(at::allclose(seen[i], s.xt[i] * schedule->input_scale(kTimes[static_cast<std::size_t>(i)])));
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
  check_tensor("loss", diffusion_loss(off_by, s.x0, s.eps, kTimes, *schedule, noise), offsets.square(), 1e-13);

  const Network rounded = [&](const at::Tensor& xt, const at::Tensor&) {
    CHECK(xt.scalar_type() == at::kFloat);
    return s.eps.to(at::kBFloat16);
  };
  const at::Tensor eps = s.eps.to(at::kFloat);
  const at::Tensor loss = diffusion_loss(rounded, s.x0.to(at::kFloat), eps, kTimes, *schedule, noise);
  CHECK(loss.scalar_type() == at::kFloat);
  const at::Tensor by_hand = (eps.to(at::kDouble) - s.eps.to(at::kBFloat16).to(at::kDouble)).square().mean({1, 2, 3});
  REQUIRE(max_abs(by_hand) > 0);
  check_tensor("loss in bfloat16", loss, by_hand, 1e-6 * max_abs(by_hand));
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

TEST_CASE("a weight of squared errors of x0 is the same weight in every prediction") {
  for (const ScheduleRow& row : schedule_table()) {
    const auto schedule = make_schedule(row.name);
    const Sample s = make_sample(*schedule);
    for (const Parameterisation& p : parameterisation_table()) {
      const at::Tensor output = p.target(s.x0, s.eps, s.level);
      const at::Tensor moved = p.read(output + 0.01, s.xt, s.level).x0 - p.read(output, s.xt, s.level).x0;
      for (std::size_t i = 0; i < kTimes.size(); ++i) {
        const double alpha = schedule->alpha(kTimes[i]), sigma = schedule->sigma(kTimes[i]), error = p.x0_error(alpha, sigma, schedule->sigma_data);
        INFO(row.name << " " << p.name << " t = " << kTimes[i]);
        CHECK(moved[static_cast<std::int64_t>(i)].abs().max().item<double>() == Approx(0.01 * error).epsilon(1e-9));
        CHECK(loss_weight(find_weighting("simple"), p, *schedule, kTimes[i]) == 1);
        for (const WeightingRow& w : weighting_table()) {
          if (w.of_x0_error) CHECK(loss_weight(w, p, *schedule, kTimes[i]) == Approx(w.of_x0_error(alpha, sigma, 0.5) * error * error));
          const double at_zero = loss_weight(w, p, *schedule, 0);
          CHECK(std::isfinite(at_zero));
        }
      }
    }
  }
}

TEST_CASE("min-SNR and EDM weights are those of their papers") {
  const auto vp = make_schedule("vp_linear"), edm = make_schedule("edm");
  const auto weight = [](const char* weighting, const char* prediction, const Schedule& schedule, double t) {
    return loss_weight(find_weighting(weighting), find_parameterisation(prediction), schedule, t);
  };
  for (const double t : {0.02, 0.2, 0.5, 0.9}) {
    const double snr = std::exp(2 * vp->lambda(t));
    CHECK(weight("min_snr", "x0", *vp, t) == Approx(std::fmin(snr, 5)));
    CHECK(weight("min_snr", "eps", *vp, t) == Approx(std::fmin(snr, 5) / snr));
    CHECK(weight("min_snr", "v", *vp, t) == Approx(std::fmin(snr, 5) / (snr + 1)));
    CHECK(weight("edm", "edm", *edm, t) == Approx(1));
    CHECK(weight("edm", "x0", *edm, t) == Approx((t * t + 0.25) / std::pow(0.5 * t, 2)));
  }
  const Network zero = [](const at::Tensor& x, const at::Tensor&) { return at::zeros_like(x); };
  const at::Tensor x0 = torch::randn({4, 1, 2, 2}), eps = torch::randn({4, 1, 2, 2});
  const Parameterisation& noise = find_parameterisation("eps");
  const at::Tensor simple = diffusion_loss(zero, x0, eps, kTimes, *vp, noise);
  const at::Tensor weighted = diffusion_loss(zero, x0, eps, kTimes, *vp, noise, find_weighting("min_snr"));
  for (std::int64_t i = 0; i < 4; ++i)
    CHECK((weighted[i] / simple[i]).item<double>() == Approx(weight("min_snr", "eps", *vp, kTimes[static_cast<std::size_t>(i)])).epsilon(1e-5));
}

TEST_CASE("combinations that cannot be trained are refused") {
  DiffusionConfig config;
  config.weighting = "edm";
  config.prediction = "x0";
  CHECK_THROWS_WITH(make_schedule(config), Catch::Contains("without bound"));
  config.prediction = "edm";
  CHECK_NOTHROW(make_schedule(config));
  config.weighting = "min_snrr";
  CHECK_THROWS_WITH(make_schedule(config), Catch::Contains("min_snr"));
  config.weighting = "simple";
  config.time_sampling = "lognormal";
  CHECK_THROWS_WITH(make_schedule(config), Catch::Contains("log_normal"));
}

TEST_CASE("an unknown prediction names those there are") { CHECK_THROWS_WITH(find_parameterisation("epsilon"), Catch::Contains("eps")); }
