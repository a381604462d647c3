#include <torch/torch.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/safetensors.h"
#include "support/scratch.h"
#include "support/tensors.h"
#include "train/ema.h"
#include "train/ema_snapshots.h"
#include "train/tiny_run.h"

using namespace uvit;
using namespace uvit::test;

namespace {

/// The share that step i has in the average after `steps` steps; element 0 is that of the start.
std::vector<double> shares(const EmaProfile& profile, std::int64_t steps) {
  std::vector<double> result = {1};
  for (std::int64_t step = 1; step <= steps; ++step) {
    const double rate = profile.rate(step);
    for (double& share : result) share *= rate;
    result.push_back(1 - rate);
  }
  return result;
}

/// A weight that falls quickly, then drifts and swings: what an average smooths.
double trajectory(std::int64_t step, double steps) {
  const double u = static_cast<double>(step) / steps;
  return std::exp(-20 * u) + 0.3 * u + 0.05 * std::sin(60 * u) + 0.02 * std::sin(900 * u);
}

}  // namespace

TEST_CASE("a power-function average has the density and the relative length of its name") {
  constexpr std::int64_t kSteps = 4000;
  for (const double length : {0.03, 0.05, 0.1, 0.2, 0.28}) {
    const std::vector<double> share = shares(power_profile(length), kSteps);
    CHECK(share[0] == 0);  // nothing of the start
    double sum = 0, mean = 0, square = 0;
    const double exponent = power_gamma(length) + 1;
    for (std::size_t i = 1; i < share.size(); ++i) {
      // The integral of the density over (i - 1, i], up to the rounding of 4000 products.
      const double n = kSteps, exact = std::pow(static_cast<double>(i) / n, exponent) - std::pow(static_cast<double>(i - 1) / n, exponent);
      if (std::abs(share[i] - exact) > 1e-12) FAIL("share of step " << i << " is " << share[i] << ", not " << exact);
      const double u = static_cast<double>(i) / n;
      sum += share[i];
      mean += share[i] * u;
      square += share[i] * u * u;
    }
    CHECK(sum == Approx(1).epsilon(1e-12));
    CHECK(std::sqrt(square - mean * mean) == Approx(length).epsilon(1e-3));  // the steps are 1 / 4000 wide
  }
  CHECK(power_gamma(0.05) == Approx(16.97).margin(0.005));  // arXiv:2312.02696, section 3.1
  CHECK(power_gamma(0.1) == Approx(6.94).margin(0.005));
  CHECK_THROWS_WITH(power_gamma(0.3), Catch::Contains("0.2887"));
  CHECK_THROWS_AS(power_gamma(0), Error);
}

TEST_CASE("a half-life halves, and its ramp makes it shorter at first") {
  const EmaProfile flat = half_life_profile(3200, 0, 32);  // 100 steps
  CHECK(start_share(flat, 100) == Approx(0.5));
  CHECK(start_share(flat, 300) == Approx(0.125));
  const EmaProfile ramped = half_life_profile(3200, 0.05, 32);
  CHECK(ramped.rate(1) == 0);
  CHECK(ramped.rate(1001) == Approx(std::exp2(-1 / 50.0)));  // 5 % of 32,000 images are 50 steps
  CHECK(ramped.rate(5000) == flat.rate(5000));
  CHECK(start_share(ramped, 10) == 0);
}

TEST_CASE("what is left of the start in an average is the product of its rates") {
  CHECK(start_share(constant_profile(0.9999), 5000) == Approx(std::pow(0.9999, 5000)));
  CHECK(start_share(constant_profile(0.0), 1) == 0);
  at::Tensor weight = at::ones({3});
  const NamedTensors parameters = {{"w", weight}};
  Ema ema(half_life_profile(96, 0, 32), parameters);
  weight.zero_();
  for (std::int64_t step = 1; step <= 6; ++step) {
    ema.at_step(step);
    ema.update(parameters);
  }
  CHECK(ema.parameters()[0].second[0].item<float>() == Approx(0.25));
}

TEST_CASE("a reconstructed average is near the one computed directly, as near as its residual says") {
  constexpr std::int64_t kSteps = 1600, kSnapshots = 16;
  const ScratchFolder folder;
  std::vector<EmaSnapshot> snapshots;
  const auto average = [&](double length, std::int64_t step) {
    const std::vector<double> share = shares(power_profile(length), step);
    double sum = 0;
    for (std::int64_t i = 1; i <= step; ++i) sum += share[static_cast<std::size_t>(i)] * trajectory(i, kSteps);
    return sum;
  };
  for (std::int64_t k = 1; k <= kSnapshots; ++k) {
    for (const double length : {0.05, 0.1}) {
      const std::int64_t step = k * kSteps / kSnapshots;
      const auto file = folder / fmt::format("{}-{}.safetensors", step, length);
      write_safetensors(file, to_tensor_file({{"w", at::full({2}, average(length, step), at::kFloat)}}));
      snapshots.push_back({step, length, file});
    }
  }
  for (const std::int64_t step : {kSteps, kSteps - 100, kSteps / 2 + 50}) {
    for (const double length : {0.05, 0.07, 0.1, 0.15, 0.2, 0.25}) {
      const Reconstruction plan = plan_reconstruction(snapshots, step, length);
      // Exactly what the combination does to each step of the training.
      std::vector<double> missing = shares(power_profile(length), step);
      double size = 0;
      for (std::size_t k = 0; k < snapshots.size(); ++k) {
        size += std::abs(plan.weights[k]);
        if (plan.weights[k] == 0) continue;
        const std::vector<double> has = shares(power_profile(snapshots[k].length), snapshots[k].step);
        for (std::size_t i = 0; i < has.size(); ++i) missing[i] -= plan.weights[k] * has[i];
      }
      double total = 0;
      for (const double share : missing) total += std::abs(share);
      const double ours = reconstruct(snapshots, plan)[0].second[1].item<double>(), exact = average(length, step);
      INFO("length " << length << " at step " << step << ": " << ours << ", directly " << exact);
      INFO("residual " << plan.residual << ", sum |missing| " << total);
      // The trajectory lies within 1.1; each snapshot and the result are rounded to float32.
      CHECK(std::abs(ours - exact) <= 1.1 * total + 6e-8 * 1.1 * (size + 1));
      // Cauchy-Schwarz: sum |missing| <= sqrt(step) |missing| = residual sqrt(step) |wanted|.
      const double gamma = power_gamma(length);
      CHECK(total <= plan.residual * (gamma + 1) / std::sqrt(2 * gamma + 1) + 1e-6);
      // At a snapshot the span holds the wanted density well; between two of them it lacks the last steps.
      CHECK(plan.residual < (step % 100 != 0 ? 1 : length > 0.2 ? 0.1 : 0.03));
      if (step == kSteps && (length == 0.05 || length == 0.1)) CHECK(plan.residual < 1e-6);
    }
  }
  CHECK_THROWS_WITH(plan_reconstruction(snapshots, 50, 0.1), Catch::Contains("train.ema_power"));
}

TEST_CASE("training keeps the snapshots that checkpoints lose, and goes on with its averages") {
  const ScratchFolder data, folder;
  Config config = tiny_config(data.path());
  config.train.ema_decay = {0.9};
  config.train.ema_half_life = 12;
  config.train.ema_power = {0.05, 0.1};
  config.train.checkpoint_every = 2;
  config.train.eval_every = 0;
  config.train.keep_checkpoints = 1;
  train({config, folder / "whole"});
  const std::vector<EmaSnapshot> snapshots = find_snapshots(folder / "whole");
  REQUIRE(snapshots.size() == 8);
  CHECK(snapshots.front().step == 2);
  CHECK(snapshots.front().length == 0.05);
  CHECK(snapshots.back().step == 8);

  config.train.steps = 4;
  train({config, folder / "halves"});
  config.train.steps = 8;
  train({config, folder / "halves", true});
  const auto whole = load_checkpoint(find_step_folder(folder / "whole")).second.ema;
  const auto halves = load_checkpoint(find_step_folder(folder / "halves")).second.ema;
  REQUIRE(whole.size() == 4);
  for (const auto& [profile, tensors] : whole)
    for (std::size_t i = 0; i < tensors.size(); ++i) CHECK(at::equal(tensors[i].second, halves.at(profile)[i].second));

  const Reconstruction plan = plan_reconstruction(snapshots, 8, 0.1);
  const NamedTensors again = reconstruct(snapshots, plan);
  const NamedTensors& direct = whole.at("power_0.1");
  REQUIRE(again.size() == direct.size());
  for (std::size_t i = 0; i < again.size(); ++i) {
    const auto same = std::find_if(direct.begin(), direct.end(), [&](const auto& named) { return named.first == again[i].first; });
    REQUIRE(same != direct.end());
    check_tensor(again[i].first, again[i].second, same->second, 1e-5 * (max_abs(same->second) + 1e-3));
  }

  // What training goes back from takes its snapshots with it.
  remove_snapshots_beyond(folder / "whole", 5);
  REQUIRE(find_snapshots(folder / "whole").size() == 4);
  CHECK(find_snapshots(folder / "whole").back().step == 4);
}
