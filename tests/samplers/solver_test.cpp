#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "diffusion/parameterisation.h"
#include "samplers/dpm_solver.h"
#include "samplers/sample_recipe.h"
#include "samplers/sampler.h"
#include "samplers/time_grid.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

constexpr double kMean = 0.4, kStd = 0.6;

/// The exact denoiser of data N(kMean, kStd^2), and what follows from it in closed form.
struct Gaussian {
  const Schedule& schedule;

  double mean(double t) const { return schedule.alpha(t) * kMean; }
  double variance(double t) const { return std::pow(schedule.alpha(t) * kStd, 2) + std::pow(schedule.sigma(t), 2); }
  Denoiser denoiser() const {
    return [*this](const at::Tensor& x, const std::vector<double>& t) -> Prediction {
      std::vector<double> alpha, sigma, spread;
      for (const double time : t) {
        alpha.push_back(schedule.alpha(time));
        sigma.push_back(schedule.sigma(time));
        spread.push_back(variance(time));
      }
      const at::Tensor a = per_sample(alpha, x), centred = (x - a * kMean) / per_sample(spread, x);
      return {kMean + a * (kStd * kStd) * centred, per_sample(sigma, x) * centred};
    };
  }
  /// The marginal at t of standard normal z; the probability flow keeps z.
  at::Tensor marginal(const at::Tensor& z, double t) const { return mean(t) + std::sqrt(variance(t)) * z; }
};

at::Tensor normal(std::int64_t rows) { return torch::randn({rows, 1, 32, 32}, at::kDouble); }

NoiseSource no_noise() {
  return [](std::int64_t) -> at::Tensor { throw std::logic_error("a deterministic solver asked for noise"); };
}

/// A solver's state where its accuracy is measured: at its last call of the denoiser, or at its end where it ends at t_end.
struct Measured {
  at::Tensor x;
  double t = 0;
};

Measured measure(const SolverRow& row, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise, const SamplerOptions& options) {
  Measured last;
  const Denoiser exact = Gaussian{schedule}.denoiser();
  const Denoiser watched = [&](const at::Tensor& x, const std::vector<double>& t) {
    last = {x, t.front()};
    return exact(x, t);
  };
  const SampleResult result = row.solve(watched, schedule, x_init, noise, options);
  return row.end == SolverEnd::data ? last : Measured{result.x0, options.t_end};
}

/// From lambda = -4.5 (or where the schedule starts) to 3, where every schedule is smooth and the start-up steps of multistep solvers do not count.
SamplerOptions smooth_range(const SolverRow& row, const Schedule& schedule, std::int64_t num_steps) {
  SamplerOptions options;
  options.num_steps = num_steps;
  options.grid = "log_snr";
  options.t_start = schedule.lambda_inverse(std::fmax(schedule.lambda(schedule.t_max()), -4.5));
  options.t_end = schedule.lambda_inverse(3);
  // The slopes of sd_discrete, which the flow solvers evaluate, jump at n / 1000 by a share of 1e-3, and are exact to 1e-6 midway. This range has 58 times
  // 16 steps of 1/1000: with 58 or 116 intervals all times lie midway.
  if (row.end == SolverEnd::zero && schedule.training_time(0) == 1e-3) {
    options.t_start = 0.9995;
    options.t_end = options.t_start - 0.928;
  }
  return options;
}

/// Largest distance to the probability flow.
double flow_error(const SolverRow& row, const Schedule& schedule, std::int64_t num_steps) {
  const Gaussian gaussian{schedule};
  const SamplerOptions options = smooth_range(row, schedule, num_steps);
  const at::Tensor z = at::linspace(-3, 3, 61, at::kDouble).view({1, 1, 1, 61});
  const Measured end = measure(row, schedule, gaussian.marginal(z, options.t_start), no_noise(), options);
  return max_abs(end.x - gaussian.marginal(z, end.t));
}

/// Error of mean and standard deviation of a stochastic solver, exactly: on Gaussian data it is affine in x_init and its draws. Pixel 0 has neither,
/// pixel 1 x_init = 1, pixel 1 + k draw k = 1.
double moment_error(const SolverRow& row, const Schedule& schedule, std::int64_t num_steps) {
  const Gaussian gaussian{schedule};
  const SamplerOptions options = smooth_range(row, schedule, num_steps);
  const auto unit = [&](std::int64_t pixel) {
    at::Tensor x = at::zeros({1, 1, 1, num_steps + 2}, at::kDouble);
    x.view(-1)[pixel] = 1;
    return x;
  };
  const Measured end = measure(row, schedule, unit(1), [&](std::int64_t k) { return unit(1 + k); }, options);
  const std::vector<double> x = values_of(end.x);
  const double mean = x[0] + (x[1] - x[0]) * gaussian.mean(options.t_start);
  double variance = std::pow(x[1] - x[0], 2) * gaussian.variance(options.t_start);
  for (std::size_t k = 2; k < x.size(); ++k) variance += std::pow(x[k] - x[0], 2);
  return std::abs(mean - gaussian.mean(end.t)) + std::abs(std::sqrt(variance) - std::sqrt(gaussian.variance(end.t)));
}

/// A solver may be made for another kind of time than this schedule's.
bool takes(const SolverRow& row, const Schedule& schedule) { return schedule.unit_time() || row.end != SolverEnd::zero; }

}  // namespace

TEST_CASE("every solver calls the denoiser as often as its row says, from its start down, and stochastic ones alone draw noise") {
  for (const ScheduleRow& schedule_row : schedule_table()) {
    const auto schedule = make_schedule(schedule_row.name);
    for (const SolverRow& row : solver_table()) {
      if (!takes(row, *schedule)) continue;
      for (const std::int64_t steps : {1, 2, 3, 10}) {
        INFO(row.name << " with " << steps << " steps on " << schedule_row.name);
        const Gaussian gaussian{*schedule};
        std::vector<std::int64_t> draws, done;
        const NoiseSource noise = [&](std::int64_t k) {
          draws.push_back(k);
          return normal(2);
        };
        std::vector<double> times;
        const Denoiser watched = [&](const at::Tensor& x, const std::vector<double>& t) {
          REQUIRE(t.size() == 2);
          times.push_back(t.front());
          return gaussian.denoiser()(x, t);
        };
        SamplerOptions options;
        options.num_steps = steps;
        options.on_step = [&](std::int64_t step, const at::Tensor&) { done.push_back(step); };
        const at::Tensor x_init = normal(2) * schedule->prior_std(), kept = x_init.clone();
        const SampleResult result = row.solve(watched, *schedule, x_init, noise, options);

        if (row.nfe) CHECK(result.nfe == row.nfe(steps));
        CHECK(static_cast<std::int64_t>(times.size()) == result.nfe);
        CHECK(times.front() == Approx(row.end == SolverEnd::zero ? schedule->t_noise() : schedule->t_max()));
        if (steps > 1 && row.end == SolverEnd::data) CHECK(times.back() == Approx(schedule->t_min()));
        if (row.nfe) CHECK(std::is_sorted(times.rbegin(), times.rend()));
        CHECK(std::is_sorted(done.begin(), done.end()));
        CHECK(done.back() == steps);
        CHECK(draws.empty() == (!row.stochastic || steps == 1));
        for (std::size_t k = 0; k < draws.size(); ++k) CHECK(draws[k] == static_cast<std::int64_t>(k + 1));
        CHECK(at::isfinite(result.x0).all().item<bool>());
        CHECK(result.x0.sizes() == x_init.sizes());
        CHECK(at::equal(x_init, kept));
      }
    }
  }
}

TEST_CASE("every solver has the order of accuracy of its row, on every schedule") {
  for (const ScheduleRow& schedule_row : schedule_table()) {
    const auto schedule = make_schedule(schedule_row.name);
    for (const SolverRow& row : solver_table()) {
      if (!row.nfe || !takes(row, *schedule)) continue;
      const auto error = row.stochastic ? moment_error : flow_error;
      // 2 mod 3, where the "fast" methods end with a step of order 2; intervals are one less for solvers that end with a call. dpm_solver_pp_fast spans
      // three intervals: its steps of 242 are as long as those of the others at 80, and its terms of orders 3 and 4 have opposite signs (2.43 at 62 to
      // 122 steps, 2.90 at 242 to 482, 2.95 at 482 to 962).
      const std::int64_t coarse = row.end == SolverEnd::zero && row.order == 2 ? 58 : row.order == 1 ? 302 : row.order == 2 ? 62 : 242;
      const std::int64_t less = row.end == SolverEnd::data ? 1 : 0, fine = row.end == SolverEnd::zero ? 2 * coarse : 2 * coarse - 2;
      const double spaces = static_cast<double>(fine - less) / static_cast<double>(coarse - less);
      const double first = error(row, *schedule, coarse), second = error(row, *schedule, fine), order = std::log(first / second) / std::log(spaces);
      INFO(row.name << " on " << schedule_row.name << ": order " << order << ", error " << second);
      CHECK(std::abs(order - static_cast<double>(row.order)) < 0.25);
      CHECK(second < 0.1);
    }
  }
}

TEST_CASE("a multistep update's error in its step is of order 2, 3, 3, and of order 4 with the whole second derivative") {
  for (const ScheduleRow& schedule_row : schedule_table()) {
    const auto schedule = make_schedule(schedule_row.name);
    const Gaussian gaussian{*schedule};
    const at::Tensor z = at::linspace(-3, 3, 7, at::kDouble).view({1, 1, 1, 7});
    const auto error = [&](double h, std::int64_t order, bool whole_bend) {
      const double middle = 1;  // the leading terms vanish near 0.3
      ReadingHistory history;
      for (const int back : {2, 1, 0}) {  // exact readings on the exact flow
        const double t = schedule->lambda_inverse(middle - back * h);
        history.push(t, gaussian.denoiser()(gaussian.marginal(z, t), {t}).x0, 3);
      }
      const double t = schedule->lambda_inverse(middle + h);
      const ExponentialStep step = exponential_step(*schedule, Reading::data, history.t[0], t);
      at::Tensor x = multistep_update(*schedule, step, gaussian.marginal(z, history.t[0]), history, order);
      const std::vector<at::Tensor>& m = history.m;
      if (whole_bend) x = x - (m[0] - 2 * m[1] + m[2]) * (0.5 * step.scale * step.phi3());
      return max_abs(x - gaussian.marginal(z, t));
    };
    const auto check = [&](std::int64_t order, bool whole_bend, double expected) {
      const double measured = std::log2(error(0.02, order, whole_bend) / error(0.01, order, whole_bend));
      INFO(schedule_row.name << " order " << order << ": " << measured);
      CHECK(std::abs(measured - expected) < 0.2);
    };
    check(1, false, 2);
    check(2, false, 3);
    check(3, false, 3);
    check(3, true, 4);
  }
}

TEST_CASE("solvers end in the distribution of the data, on every schedule, over its whole range") {
  torch::manual_seed(3);
  for (const ScheduleRow& schedule_row : schedule_table()) {
    const auto schedule = make_schedule(schedule_row.name);
    const Gaussian gaussian{*schedule};
    for (const SolverRow& row : solver_table()) {
      if (!takes(row, *schedule)) continue;
      INFO(row.name << " on " << schedule_row.name);
      SamplerOptions options;
      options.num_steps = 200;
      const at::Tensor z = normal(16);
      const at::Tensor x0 = row.solve(gaussian.denoiser(), *schedule, gaussian.marginal(z, schedule->t_max()), [](std::int64_t) { return normal(16); }, options).x0;
      // 16,384 draws: one sigma of the mean is 0.0047, of the standard deviation 0.0033; the rest is the step size, and the noise left at t_end.
      CHECK(std::abs(x0.mean().item<double>() - kMean) < 0.02);
      CHECK(std::abs(x0.std().item<double>() - kStd) < 0.025);
      if (!row.stochastic) check_tensor("x0", x0, kMean + kStd * z, 0.12);
    }
  }
}

TEST_CASE("every solver takes every grid") {
  torch::manual_seed(6);
  const at::Tensor x = normal(1);
  for (const ScheduleRow& schedule_row : schedule_table()) {
    const auto schedule = make_schedule(schedule_row.name);
    for (const SolverRow& row : solver_table()) {
      if (!takes(row, *schedule)) continue;
      for (const TimeGridRow& grid : time_grid_table()) {
        INFO(row.name << " on " << schedule_row.name << ", " << grid.name);
        SamplerOptions options;
        options.num_steps = 30;
        options.grid = grid.name;
        if (schedule->unit_time()) options.shift = 2;
        const at::Tensor x0 =
            row.solve(Gaussian{*schedule}.denoiser(), *schedule, x * schedule->prior_std(), [](std::int64_t) { return normal(1); }, options).x0;
        CHECK(std::abs(x0.mean().item<double>() - kMean) < 0.4);
        CHECK(at::isfinite(x0).all().item<bool>());
      }
    }
  }
  SamplerOptions options;
  options.grid = "logsnr";
  CHECK_THROWS_WITH(time_grid(*make_schedule("flow"), options, "log_snr", 3), Catch::Contains("log_snr"));
}

TEST_CASE("shifted grids keep their ends and lie nearer to noise") {
  const auto schedule = make_schedule("flow");
  SamplerOptions options;
  options.num_steps = 9;
  const std::vector<double> plain = time_grid(*schedule, options, "time_uniform", 9);
  options.shift = 3;
  const std::vector<double> shifted = time_grid(*schedule, options, "time_uniform", 9);
  CHECK(shifted.front() == plain.front());
  CHECK(shifted.back() == plain.back());
  for (std::size_t i = 1; i + 1 < 9; ++i) CHECK(shifted[i] > plain[i]);
  CHECK(shifted_time(1, 0, 0.5, 3) == Approx(0.75));
  CHECK_THROWS_WITH(time_grid(*make_schedule("edm"), options, "log_snr", 3), Catch::Contains("time_shift"));
}

TEST_CASE("ddim's eta is ddpm at 1 and draws no noise at 0") {
  const auto schedule = make_schedule("vp_linear");
  torch::manual_seed(8);
  const at::Tensor x = normal(1), noises = torch::randn({9, 1, 1, 32, 32}, at::kDouble);
  const NoiseSource noise = [&](std::int64_t k) { return noises[k - 1]; };
  SamplerOptions options;
  options.num_steps = 10;
  const auto solve = [&](const char* name, double eta) {
    options.eta = eta;
    return find_solver(name).solve(Gaussian{*schedule}.denoiser(), *schedule, x, noise, options).x0;
  };
  CHECK(at::equal(solve("ddim", 1), solve("ddpm", 0)));
  CHECK_FALSE(at::equal(solve("ddim", 0.5), solve("ddim", 1)));
  options.eta = 0;
  CHECK_NOTHROW(find_solver("ddim").solve(Gaussian{*schedule}.denoiser(), *schedule, x, no_noise(), options));
}

TEST_CASE("the adaptive solver keeps its tolerance, and each sample its own steps") {
  torch::manual_seed(9);
  const at::Tensor z = normal(3) * at::tensor({0.1, 1.0, 4.0}, at::kDouble).view({3, 1, 1, 1});
  for (const ScheduleRow& schedule_row : schedule_table()) {
    const auto schedule = make_schedule(schedule_row.name);
    const Gaussian gaussian{*schedule};
    const Denoiser denoiser = gaussian.denoiser();
    SamplerOptions options;
    std::int64_t before = 0;
    for (const double tolerance : {0.05, 0.005}) {
      INFO(schedule_row.name << " tolerance " << tolerance);
      options.tolerance = tolerance;
      const auto solve = [&](const at::Tensor& start) { return adaptive(denoiser, *schedule, start, options, {.order = 3}); };
      const at::Tensor start = gaussian.marginal(z, schedule->t_max());
      const SampleResult all = solve(start);
      check_tensor("x0", all.x0, gaussian.marginal(z, schedule->t_min()), 0.05);
      CHECK(all.nfe % 3 == 0);
      CHECK(all.nfe >= before);
      before = all.nfe;
      for (std::int64_t i = 0; i < 3; ++i) CHECK(at::equal(solve(start.narrow(0, i, 1)).x0[0], all.x0[i]));
    }
  }
  SamplerOptions options;
  options.order = 1;
  const auto schedule = make_schedule("vp_linear");
  CHECK_THROWS_WITH(find_solver("dpm_solver_adaptive").solve(Gaussian{*schedule}.denoiser(), *schedule, z, no_noise(), options), Catch::Contains("order"));
}

TEST_CASE("the range of times is checked") {
  const auto schedule = make_schedule("vp_linear");
  const at::Tensor x = normal(1);
  const NoiseSource noise = [&](std::int64_t) { return normal(1); };
  for (const SolverRow& row : solver_table()) {
    INFO(row.name);
    const auto solve = [&](std::int64_t steps, double start, double end) {
      SamplerOptions options;
      options.num_steps = steps;
      options.t_start = start;
      options.t_end = end;
      return row.solve(Gaussian{*schedule}.denoiser(), *schedule, x, noise, options);
    };
    CHECK_NOTHROW(solve(3, 0.7, 0.01));
    CHECK_THROWS_AS(solve(0, -1, -1), Error);
    CHECK_THROWS_AS(solve(-4, -1, -1), Error);
    CHECK_THROWS_AS(solve(3, 0.2, 0.5), Error);
    if (row.end != SolverEnd::zero) CHECK_THROWS_AS(solve(3, 1.0, 0.0), Error);
  }
  const auto edm = make_schedule("edm");
  SamplerOptions options;
  CHECK_THROWS_WITH(find_solver("flow_heun").solve(Gaussian{*edm}.denoiser(), *edm, x, no_noise(), options), Catch::Contains("edm_heun"));
}

TEST_CASE("each solver goes by the keys that its row names, and by no other solver's") {
  using Change = void (*)(SampleConfig&);
  const std::vector<std::pair<std::string, Change>> changes = {{"num_steps", [](SampleConfig& c) { c.num_steps = 9; }},
                                                               {"t_end", [](SampleConfig& c) { c.t_end = 0.01; }},
                                                               {"time_grid", [](SampleConfig& c) { c.time_grid = "t2"; }},
                                                               {"time_shift", [](SampleConfig& c) { c.time_shift = 3; }},
                                                               {"order", [](SampleConfig& c) { c.order = 3; }},
                                                               {"eta", [](SampleConfig& c) { c.eta = 0.5; }},
                                                               {"tolerance", [](SampleConfig& c) { c.tolerance = 0.01; }},
                                                               {"churn", [](SampleConfig& c) { c.churn = 1; }},
                                                               {"churn_range", [](SampleConfig& c) { c.churn_range = {0.0, 0.5}; }},
                                                               {"churn_noise", [](SampleConfig& c) { c.churn_noise = 1.1; }}};
  const auto schedule = make_schedule("vp_linear");
  const at::Tensor x = normal(2);
  const NoiseSource noise = [](std::int64_t draw) {
    torch::manual_seed(static_cast<std::uint64_t>(draw));
    return normal(2);
  };
  SampleConfig base;
  base.num_steps = 6;
  base.time_grid = "time_uniform";  // which a shift acts on
  base.order = 2;
  base.churn = 2;
  for (const SolverRow& row : solver_table()) {
    const auto draw = [&](const SampleConfig& config) { return row.solve(Gaussian{*schedule}.denoiser(), *schedule, x, noise, sampler_options(config)).x0; };
    const at::Tensor plain = draw(base);
    for (const auto& [key, change] : changes) {
      INFO(row.name << " and " << key);
      SampleConfig changed = base;
      change(changed);
      CHECK(at::equal(draw(changed), plain) == !row.goes_by(key));
    }
    CHECK(row.goes_by("guidance_scale"));
  }
}

TEST_CASE("a recipe names what the solver goes by") {
  Config config;
  SampleConfig& sample = config.sample;
  sample.solver = "edm_heun";
  sample.num_steps = 7;
  sample.time_grid = "t2";
  sample.eta = 0.5;
  sample.churn = 3;
  sample.guidance_rescale = 0.2;
  const auto heun = sample_recipe(config, 13);
  CHECK(heun.at("solver") == "edm_heun");
  CHECK(heun.at("num_steps") == "7");
  CHECK(heun.at("nfe") == "13");
  CHECK(heun.at("churn") == "3.0");
  CHECK(heun.at("guidance_rescale") == "0.2");
  CHECK(heun.count("eta") + heun.count("time_grid") + heun.count("seed") == 0);
  sample.solver = "ddim";
  CHECK(sample_recipe(config, 7).at("eta") == "0.5");
  CHECK(sample_recipe(config, 7).at("time_grid") == "\"t2\"");
  CHECK(sample_recipe(config, 7).count("churn") == 0);
  sample.solver = "dpm_solver_adaptive";
  CHECK(sample_recipe(config, 40).count("num_steps") == 0);
}

TEST_CASE("an unknown solver names the nearest") { CHECK_THROWS_WITH(find_solver("dim"), Catch::Contains("ddim")); }
