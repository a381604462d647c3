#include <torch/torch.h>

#include "samplers/dpm_solver.h"
#include "samplers/solvers.h"

namespace uvit {
namespace {

/// Steps of one order, and what is left of num_steps in a last one.
std::vector<std::int64_t> even_orders(const SamplerOptions& options, std::int64_t own) {
  const std::int64_t order = options.order > 0 ? options.order : own;
  std::vector<std::int64_t> orders(static_cast<std::size_t>(options.num_steps / order), order);
  if (options.num_steps % order != 0) orders.push_back(options.num_steps % order);
  return orders;
}

}  // namespace

SampleResult dpm_solver_fast(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource&,
                             const SamplerOptions& options) {
  return singlestep(denoiser, schedule, x_init, options, {.reading = Reading::noise, .orders = fast_orders(options.num_steps), .grid = "log_snr"});
}

SampleResult dpm_solver_singlestep(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource&,
                                   const SamplerOptions& options) {
  return singlestep(denoiser, schedule, x_init, options, {.reading = Reading::noise, .orders = even_orders(options, 3), .grid = "log_snr"});
}

SampleResult dpm_solver_pp_fast(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource&,
                                const SamplerOptions& options) {
  return singlestep(denoiser, schedule, x_init, options,
                    {.reading = Reading::data, .orders = fast_orders(options.num_steps), .grid = "time_uniform", .spanning = true});
}

SampleResult dpm_solver_pp_singlestep(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource&,
                                      const SamplerOptions& options) {
  return singlestep(denoiser, schedule, x_init, options, {.reading = Reading::data, .orders = even_orders(options, 2), .grid = "log_snr"});
}

}  // namespace uvit
