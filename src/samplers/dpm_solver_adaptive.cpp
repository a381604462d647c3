#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "diffusion/parameterisation.h"
#include "samplers/dpm_solver.h"
#include "samplers/solvers.h"
#include "samplers/time_grid.h"

namespace uvit {
namespace {

constexpr double kFirstStep = 0.05, kAbsolute = 0.0078, kSafety = 0.9, kLongestStep = 1, kArrived = 1e-5;

/// Root mean square of the difference of both updates in units of the tolerance, a sample each. [B]
std::vector<double> errors(const at::Tensor& higher, const at::Tensor& lower, const at::Tensor& previous, double relative) {
  const at::Tensor unit = (at::maximum(lower.abs(), previous.abs()) * relative).clamp_min(kAbsolute);
  const at::Tensor error = ((higher - lower) / unit).square().flatten(1).mean(1).sqrt().to(at::kCPU, at::kDouble).contiguous();
  return {error.const_data_ptr<double>(), error.const_data_ptr<double>() + error.numel()};
}

}  // namespace

SampleResult adaptive(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const SamplerOptions& options,
                      const AdaptivePlan& plan) {
  const TimeRange range = time_range(schedule, options);
  if (plan.order < 2) throw Error("sample.order = 1: the adaptive solver compares two orders, take 2 or 3");
  const auto rows = static_cast<std::size_t>(x_init.size(0));
  DpmSolver solver(denoiser, schedule, Reading::noise);
  const double longest = plan.official ? std::numeric_limits<double>::infinity() : kLongestStep;
  const double last_lambda = schedule.lambda(range.end), whole = last_lambda - schedule.lambda(range.start);
  at::Tensor x = x_init, previous = x_init;
  std::vector<double> s(rows, range.start), h(rows, kFirstStep), t = s, from = s;
  std::vector<double> running(rows, 1);
  while (std::any_of(running.begin(), running.end(), [](double flag) { return flag != 0; })) {
    for (std::size_t i = 0; i < rows; ++i) {
      if (running[i] == 0) continue;  // goes through the motions of its last step
      from[i] = s[i];
      t[i] = schedule.lambda_inverse(schedule.lambda(s[i]) + h[i]);
    }
    const at::Tensor m = solver.evaluate(x, from);
    at::Tensor m1, lower, higher;
    if (plan.order == 2) {
      lower = solver.first(x, from, t, m);
      higher = solver.second(x, from, t, m, 0.5);
    } else {
      lower = solver.second(x, from, t, m, 1.0 / 3, &m1);
      higher = solver.third(x, from, t, m, 1.0 / 3, 2.0 / 3, m1);
    }
    std::vector<double> error = errors(higher, lower, previous, options.tolerance);
    if (plan.official) std::fill(error.begin(), error.end(), *std::max_element(error.begin(), error.end()));
    std::vector<double> accepted(rows, 0);
    double done = whole;
    for (std::size_t i = 0; i < rows; ++i) {
      if (running[i] == 0) continue;
      if (!std::isfinite(error[i])) throw Error("the adaptive solver met values that are not finite: the network diverges, or takes another solver");
      accepted[i] = error[i] <= 1 ? 1 : 0;
      if (accepted[i] != 0) s[i] = t[i];
      running[i] = std::abs(s[i] - range.end) > kArrived ? 1 : 0;
      const double left = last_lambda - schedule.lambda(s[i]);
      h[i] = std::min({kSafety * h[i] * std::pow(error[i], -1.0 / static_cast<double>(plan.order)), longest, left});
      if (running[i] != 0) done = std::fmin(done, whole - left);
    }
    const at::Tensor taken = per_sample(accepted, x) != 0;
    x = at::where(taken, higher, x);
    previous = at::where(taken, lower, previous);
    const auto step = static_cast<std::int64_t>(static_cast<double>(options.num_steps) * done / whole);
    if (options.on_step) options.on_step(done == whole ? options.num_steps : std::min(step, options.num_steps - 1), x);
  }
  return {x, solver.nfe()};
}

SampleResult dpm_solver_adaptive(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource&,
                                 const SamplerOptions& options) {
  return adaptive(denoiser, schedule, x_init, options, {.order = options.order > 0 ? options.order : 3});
}

}  // namespace uvit
