#include <torch/torch.h>

#include <cmath>
#include <numbers>

#include "core/error.h"
#include "samplers/likelihood.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

/// log N(x; mean, covariance), a row each.
std::vector<double> log_normal_density(const at::Tensor& x, const at::Tensor& mean, const at::Tensor& covariance) {
  const at::Tensor centred = x.flatten(1) - mean, solved = at::linalg_solve(covariance, centred.t()).t();
  const double half_log = 0.5 * at::logdet(covariance * (2 * std::numbers::pi)).item<double>();
  return values_of(-0.5 * (centred * solved).sum(1) - half_log);
}

/// The exact denoiser of N(mean, covariance) over flattened pixels.
Denoiser gaussian(const Schedule& schedule, const at::Tensor& mean, const at::Tensor& covariance) {
  return [&schedule, mean, covariance](const at::Tensor& x, const std::vector<double>& t) -> Prediction {
    const double alpha = schedule.alpha(t[0]), sigma = schedule.sigma(t[0]);
    const at::Tensor marginal = alpha * alpha * covariance + sigma * sigma * at::eye(mean.size(0), mean.options());
    const at::Tensor solved = at::linalg_solve(marginal, (x.flatten(1) - alpha * mean).t()).t();
    return {(mean + alpha * at::matmul(solved, covariance)).view_as(x), (sigma * solved).view_as(x)};
  };
}

}  // namespace

TEST_CASE("the likelihood of Gaussian data is that of its closed form, on every schedule") {
  torch::manual_seed(1);
  const at::Tensor mean = at::full({6}, 0.4, at::kDouble), covariance = at::eye(6, at::kDouble) * 0.36;
  const at::Tensor x = 0.4 + 0.6 * torch::randn({5, 1, 2, 3}, at::kDouble);
  for (const ScheduleRow& row : schedule_table()) {
    INFO(row.name);
    const auto schedule = make_schedule(row.name);
    const double low = likelihood_start(*schedule), high = schedule->t_max();
    const auto mean_at = [&](double t) { return schedule->alpha(t) * mean; };
    const auto variance_at = [&](double t) { return std::pow(schedule->alpha(t) * 0.6, 2) + std::pow(schedule->sigma(t), 2); };
    // The flow keeps z = (x - mean) / std, so it takes the density of the prior at t_max back to t_low: the prior is not quite the marginal (sd_discrete
    // has alpha = 0.07 there), and that difference belongs to the result.
    const at::Tensor z = (x.flatten(1) - mean_at(low)) / std::sqrt(variance_at(low)), end = mean_at(high) + z * std::sqrt(variance_at(high));
    REQUIRE(max_abs(z) < 3);
    REQUIRE(max_abs(z.square().sum(1)) < 16);
    std::vector<double> exact = log_normal_density(end, at::zeros({6}, at::kDouble), at::eye(6, at::kDouble) * std::pow(schedule->prior_std(), 2));
    for (double& value : exact) value += 3 * std::log(variance_at(high) / variance_at(low));
    const auto with_steps = [&](std::int64_t steps) {
      // One probe is exact here: the Jacobian is a multiple of the identity, and the squares of signs are 1.
      const LikelihoodResult ours = log_likelihood(gaussian(*schedule, mean, covariance), *schedule, x, torch::randn_like(x), low, steps);
      CHECK(ours.nfe == 2 * steps);
      return at::tensor(ours.log_likelihood);
    };
    const at::Tensor coarse = with_steps(200), fine = with_steps(400), closed = at::tensor(exact);
    // Heun's method is of order 2 in the step h: twice the steps leave a quarter of the error, and (4 fine - coarse) / 3 only what is of order 3, with
    // h = 0.05 at most and sum(z^2) < 16 some 16 h^3.
    const double shrinks = std::log2(max_abs(coarse - closed) / max_abs(fine - closed));
    INFO("errors " << max_abs(coarse - closed) << ", " << max_abs(fine - closed));
    CHECK(shrinks == Approx(2).margin(0.15));
    check_tensor("log p", (4 * fine - coarse) / 3, closed, 0.002);
    const std::vector<double> density = log_normal_density(x, mean_at(low), variance_at(low) * at::eye(6, at::kDouble));
    // KL of the marginal from the prior is what the prior costs on average: (m^2 + v - 1 - log v) / 2 a dimension, v, m in units of the prior. A draw
    // scatters around it by m |z| and |v - 1| |z^2 - 1| / 2.
    const double m = schedule->alpha(high) * 0.4 / schedule->prior_std(), v = variance_at(high) / std::pow(schedule->prior_std(), 2);
    check_close("density", exact, density, 6 * (0.5 * (m * m + v - 1 - std::log(v)) + 3 * m + 4 * std::abs(v - 1)));
  }
}

TEST_CASE("Hutchinson's estimate of a full covariance is right on average") {
  torch::manual_seed(2);
  const auto schedule = make_schedule("vp_linear");
  const at::Tensor root = torch::randn({4, 4}, at::kDouble) * 0.5, covariance = at::matmul(root, root.t()) + 0.1 * at::eye(4, at::kDouble);
  const at::Tensor mean = torch::randn({4}, at::kDouble) * 0.3, x = torch::randn({1, 1, 2, 2}, at::kDouble) * 0.5;
  const at::Tensor copies = x.expand({400, 1, 2, 2}).contiguous();
  const LikelihoodResult ours = log_likelihood(gaussian(*schedule, mean, covariance), *schedule, copies, torch::randn_like(copies), 1e-5, 100);
  const at::Tensor estimates = at::tensor(ours.log_likelihood);
  const double error = estimates.mean().item<double>() - log_normal_density(x, mean, covariance)[0];
  const double standard_error = estimates.std().item<double>() / 20;
  CHECK(standard_error > 0);
  CHECK(std::abs(error) < 4 * standard_error + 0.005);
}

TEST_CASE("bits a dimension: a uniform density over the 256 values costs 8 bits, and the steps are checked") {
  CHECK(bits_per_dim(-12 * std::log(256 / 127.5), 12) == Approx(8));
  const auto schedule = make_schedule("flow");
  const at::Tensor x = torch::zeros({1, 1, 1, 1});
  const Denoiser none = [](const at::Tensor& at, const std::vector<double>&) -> Prediction { return {at, at}; };
  CHECK_THROWS_AS(log_likelihood(none, *schedule, x, x, 1e-5, 0), Error);
  CHECK_THROWS_AS(log_likelihood(none, *schedule, x, x, 0, 3), Error);
}
