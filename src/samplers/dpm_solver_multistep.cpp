#include <torch/torch.h>

#include <algorithm>

#include "samplers/dpm_solver.h"
#include "samplers/solvers.h"
#include "samplers/time_grid.h"

namespace uvit {

void ReadingHistory::push(double time, at::Tensor reading, std::size_t keep) {
  t.insert(t.begin(), time);
  m.insert(m.begin(), std::move(reading));
  t.resize(std::min(t.size(), keep));
  m.resize(t.size());
}

at::Tensor multistep_update(const Schedule& schedule, const ExponentialStep& step, const at::Tensor& x, const ReadingHistory& history, std::int64_t order,
                            bool taylor) {
  const auto& [t, m] = history;
  const at::Tensor first = x * step.decay - m[0] * (step.scale * step.phi1());
  const auto known = std::min<std::int64_t>(order, static_cast<std::int64_t>(m.size()));
  if (known == 1) return first;
  const double r0 = (schedule.lambda(t[0]) - schedule.lambda(t[1])) / step.h;
  const at::Tensor d0 = (m[0] - m[1]) / r0;
  if (known == 2) return first - d0 * (step.scale * (taylor ? step.phi2() : 0.5 * step.phi1()));
  const double r1 = (schedule.lambda(t[1]) - schedule.lambda(t[2])) / step.h;
  const at::Tensor bend = (d0 - (m[1] - m[2]) / r1) / (r0 + r1);
  return first - (d0 + bend * r0) * (step.scale * step.phi2()) - bend * (step.scale * step.phi3());
}

SampleResult multistep(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                       const SamplerOptions& options, const MultistepPlan& plan) {
  const std::vector<double> times = time_grid(schedule, options, plan.grid, options.num_steps + (plan.to_data ? 0 : 1));
  SampleResult result{x_init, 0};
  ReadingHistory history;
  for (std::int64_t step = 1; step <= options.num_steps; ++step) {
    const auto i = static_cast<std::size_t>(step - 1);
    const Prediction prediction = denoiser(result.x0, for_each_row(times[i], result.x0));
    ++result.nfe;
    history.push(times[i], plan.reading == Reading::data ? prediction.x0 : prediction.eps, static_cast<std::size_t>(plan.order));
    if (i + 1 == times.size()) {
      result.x0 = prediction.x0;
    } else {
      const ExponentialStep e = plan.reading == Reading::data ? exponential_sde_step(schedule, times[i], times[i + 1], plan.eta)
                                                              : exponential_step(schedule, Reading::noise, times[i], times[i + 1]);
      result.x0 = multistep_update(schedule, e, result.x0, history, plan.order, plan.taylor);
      if (e.noise_std > 0) result.x0 = result.x0 + noise(step) * e.noise_std;
    }
    if (options.on_step) options.on_step(step, result.x0);
  }
  return result;
}

SampleResult dpm_solver_pp_2m(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                              const SamplerOptions& options) {
  return multistep(denoiser, schedule, x_init, noise, options, {.order = 2});
}

SampleResult dpm_solver_pp_3m(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                              const SamplerOptions& options) {
  return multistep(denoiser, schedule, x_init, noise, options, {.order = 3});
}

SampleResult dpm_solver_pp_2m_sde(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                                  const SamplerOptions& options) {
  return multistep(denoiser, schedule, x_init, noise, options, {.order = 2, .eta = 1});
}

SampleResult dpm_solver_pp_3m_sde(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                                  const SamplerOptions& options) {
  return multistep(denoiser, schedule, x_init, noise, options, {.order = 3, .eta = 1});
}

}  // namespace uvit
