#include <torch/torch.h>

#include <cmath>
#include <map>

#include "core/error.h"
#include "samplers/sampler.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

constexpr double kMean = 0.4, kStd = 0.6;

/// The exact denoiser of data N(kMean, kStd^2), and what follows from it in closed form.
struct Gaussian {
  const Schedule& schedule;

  double variance(double t) const { return std::pow(schedule.alpha(t) * kStd, 2) + std::pow(schedule.sigma(t), 2); }
  Denoiser denoiser(std::int64_t* calls = nullptr) const {
    return [this, calls](const at::Tensor& x, const std::vector<double>& t) -> Prediction {
      if (calls) ++*calls;
      REQUIRE(t == std::vector<double>(static_cast<std::size_t>(x.size(0)), t.front()));
      const double alpha = schedule.alpha(t[0]), sigma = schedule.sigma(t[0]);
      const at::Tensor centred = (x - alpha * kMean) / variance(t[0]);
      return {kMean + alpha * kStd * kStd * centred, sigma * centred};
    };
  }
  /// The marginal at t of standard normal z; the probability flow keeps z.
  at::Tensor marginal(const at::Tensor& z, double t) const { return schedule.alpha(t) * kMean + std::sqrt(variance(t)) * z; }
};

at::Tensor normal(std::int64_t rows) { return torch::randn({rows, 1, 32, 32}, at::kDouble); }

NoiseSource no_noise() {
  return [](std::int64_t) -> at::Tensor { throw std::logic_error("a deterministic solver asked for noise"); };
}

/// Largest distance to the probability flow at t_end, where the last step (to t = 0) begins.
double flow_error(const SolverRow& row, const Schedule& schedule, const at::Tensor& z, std::int64_t intervals) {
  const Gaussian gaussian{schedule};
  at::Tensor at_end;
  SamplerOptions options;
  options.num_steps = intervals + 1;
  options.on_step = [&](std::int64_t step, const at::Tensor& x) {
    if (step == intervals) at_end = x;
  };
  row.solve(gaussian.denoiser(), schedule, gaussian.marginal(z, schedule.t_max()), no_noise(), options);
  return max_abs(at_end - gaussian.marginal(z, schedule.t_min()));
}

}  // namespace

TEST_CASE("every solver calls the denoiser as often as its row says, from t_max down, and stochastic ones alone draw noise") {
  for (const SolverRow& row : solver_table()) {
    for (const std::int64_t steps : {1, 2, 3, 10}) {
      INFO(row.name << " with " << steps << " steps");
      const auto schedule = make_schedule("vp_linear");
      const Gaussian gaussian{*schedule};
      std::vector<std::int64_t> draws, done;
      const NoiseSource noise = [&](std::int64_t k) {
        draws.push_back(k);
        return normal(2);
      };
      std::vector<double> times;
      const Denoiser watched = [&](const at::Tensor& x, const std::vector<double>& t) {
        times.push_back(t.front());
        return gaussian.denoiser()(x, t);
      };
      SamplerOptions options;
      options.num_steps = steps;
      options.on_step = [&](std::int64_t step, const at::Tensor&) { done.push_back(step); };
      const at::Tensor x_init = normal(2), kept = x_init.clone();
      const SampleResult result = row.solve(watched, *schedule, x_init, noise, options);

      CHECK(result.nfe == row.nfe(steps));
      CHECK(static_cast<std::int64_t>(times.size()) == result.nfe);
      CHECK(times.front() == schedule->t_max());
      if (steps > 1) CHECK(times.back() == schedule->t_min());
      CHECK(std::is_sorted(times.rbegin(), times.rend()));
      CHECK(static_cast<std::int64_t>(done.size()) == steps);
      CHECK(done.back() == steps);
      CHECK(draws.empty() == (!row.stochastic || steps == 1));
      for (std::size_t k = 0; k < draws.size(); ++k) CHECK(draws[k] == static_cast<std::int64_t>(k + 1));
      CHECK(at::isfinite(result.x0).all().item<bool>());
      CHECK(result.x0.sizes() == x_init.sizes());
      CHECK(at::equal(x_init, kept));
    }
  }
}

TEST_CASE("stochastic solvers end in the distribution of the data, on every schedule") {
  torch::manual_seed(3);
  for (const ScheduleRow& schedule_row : schedule_table()) {
    const auto schedule = make_schedule(schedule_row.name);
    const Gaussian gaussian{*schedule};
    for (const SolverRow& row : solver_table()) {
      if (!row.stochastic) continue;
      INFO(row.name << " on " << schedule_row.name);
      SamplerOptions options;
      options.num_steps = 400;
      const NoiseSource noise = [](std::int64_t) { return normal(16); };
      const at::Tensor x0 = row.solve(gaussian.denoiser(), *schedule, gaussian.marginal(normal(16), schedule->t_max()), noise, options).x0;
      // 16,384 draws: one sigma of the mean is 0.0047, of the standard deviation 0.0033; the rest is the step size.
      CHECK(std::abs(x0.mean().item<double>() - kMean) < 0.02);
      CHECK(std::abs(x0.std().item<double>() - kStd) < 0.02);
    }
  }
}

TEST_CASE("deterministic solvers end on the probability flow, on every schedule, nearer with more steps") {
  torch::manual_seed(5);
  const at::Tensor z = normal(1);
  for (const ScheduleRow& schedule_row : schedule_table()) {
    const auto schedule = make_schedule(schedule_row.name);
    const Gaussian gaussian{*schedule};
    for (const SolverRow& row : solver_table()) {
      if (row.stochastic) continue;
      INFO(row.name << " on " << schedule_row.name);
      const double coarse = flow_error(row, *schedule, z, 50), fine = flow_error(row, *schedule, z, 400);
      CHECK(fine < 0.25 * coarse);
      CHECK(fine < 0.05);
      SamplerOptions options;
      options.num_steps = 400;
      const at::Tensor x0 = row.solve(gaussian.denoiser(), *schedule, gaussian.marginal(z, schedule->t_max()), no_noise(), options).x0;
      check_tensor("x0", x0, kMean + kStd * z, 0.05);
    }
  }
}

TEST_CASE("deterministic solvers have the order of accuracy of their papers") {
  torch::manual_seed(4);
  const at::Tensor z = normal(1);
  const std::map<std::string, double> orders = {{"euler_ode", 1}, {"ddim", 1}, {"dpm_solver_pp_2m", 2}};
  for (const ScheduleRow& schedule_row : schedule_table()) {
    const auto schedule = make_schedule(schedule_row.name);
    for (const SolverRow& row : solver_table()) {
      if (row.stochastic) continue;
      INFO(row.name << " on " << schedule_row.name);
      REQUIRE(orders.count(row.name) == 1);
      const double order = std::log2(flow_error(row, *schedule, z, 400) / flow_error(row, *schedule, z, 800));
      CHECK(std::abs(order - orders.at(row.name)) < 0.15);
    }
  }
}

TEST_CASE("the range of times is checked") {
  const auto schedule = make_schedule("vp_linear");
  const Gaussian gaussian{*schedule};
  const at::Tensor x = normal(1);
  const NoiseSource noise = [&](std::int64_t) { return normal(1); };
  for (const SolverRow& row : solver_table()) {
    INFO(row.name);
    const auto solve = [&](std::int64_t steps, double start, double end) {
      SamplerOptions options;
      options.num_steps = steps;
      options.t_start = start;
      options.t_end = end;
      return row.solve(gaussian.denoiser(), *schedule, x, noise, options);
    };
    CHECK_NOTHROW(solve(3, 0.7, 0.01));
    CHECK_THROWS_AS(solve(0, -1, -1), Error);
    CHECK_THROWS_AS(solve(-4, -1, -1), Error);
    CHECK_THROWS_AS(solve(3, 0.2, 0.5), Error);
    CHECK_THROWS_AS(solve(3, 1.0, 0.0), Error);
  }
}

TEST_CASE("an unknown solver names the nearest") { CHECK_THROWS_WITH(find_solver("dim"), Catch::Contains("ddim")); }
