#include <torch/torch.h>

#include "samplers/dpm_solver.h"
#include "samplers/solvers.h"
#include "samplers/time_grid.h"

namespace uvit {
namespace {

/// Steps of one order, and what is left of num_steps in a last one.
std::vector<std::int64_t> even_orders(const Schedule& schedule, const SamplerOptions& options, std::int64_t own) {
  time_range(schedule, options);  // num_steps < 1 ends here
  const std::int64_t order = options.order > 0 ? options.order : own;
  std::vector<std::int64_t> orders(static_cast<std::size_t>(options.num_steps / order), order);
  if (options.num_steps % order != 0) orders.push_back(options.num_steps % order);
  return orders;
}

std::vector<std::int64_t> checked_fast_orders(const Schedule& schedule, const SamplerOptions& options) {
  time_range(schedule, options);
  return fast_orders(options.num_steps);
}

}  // namespace

SampleResult dpm_solver_fast(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource&,
                             const SamplerOptions& options) {
  return singlestep(denoiser, schedule, x_init, options, {.reading = Reading::noise, .orders = checked_fast_orders(schedule, options), .grid = "log_snr"});
}

SampleResult dpm_solver_singlestep(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource&,
                                   const SamplerOptions& options) {
  return singlestep(denoiser, schedule, x_init, options, {.reading = Reading::noise, .orders = even_orders(schedule, options, 3), .grid = "log_snr"});
}

SampleResult dpm_solver_pp_fast(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource&,
                                const SamplerOptions& options) {
  return singlestep(denoiser, schedule, x_init, options,
                    {.reading = Reading::data, .orders = checked_fast_orders(schedule, options), .grid = "time_uniform", .spanning = true});
}

SampleResult dpm_solver_pp_singlestep(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource&,
                                      const SamplerOptions& options) {
  return singlestep(denoiser, schedule, x_init, options, {.reading = Reading::data, .orders = even_orders(schedule, options, 2), .grid = "log_snr"});
}

}  // namespace uvit
