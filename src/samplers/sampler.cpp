#include <torch/torch.h>

#include "samplers/sampler.h"

#include <algorithm>
#include <array>

#include "core/name_table.h"
#include "samplers/solvers.h"

namespace uvit {
namespace {

std::int64_t one_a_step(std::int64_t num_steps) { return num_steps; }
std::int64_t two_but_last(std::int64_t num_steps) { return 2 * num_steps - 1; }

}  // namespace

std::span<const SolverRow> solver_table() {
  using enum SolverEnd;
  using Keys = std::vector<std::string_view>;
  static const Keys grid = {"num_steps", "time_grid", "time_shift"}, eta = {"num_steps", "time_grid", "time_shift", "eta"};
  static const Keys orders = {"num_steps", "time_grid", "time_shift", "order"}, tolerance = {"order", "tolerance"};
  static const Keys churn = {"num_steps", "churn", "churn_range", "churn_noise"}, shift = {"num_steps", "time_shift"};
  static const std::array<SolverRow, 17> table = {{
      {"euler_maruyama_sde", "reverse SDE, uniform in t; NFE = steps; arXiv:2011.13456", true, 1, data, one_a_step, euler_maruyama_sde, grid},
      {"euler_ode", "probability flow, Euler, uniform in t; NFE = steps; arXiv:2011.13456", false, 1, data, one_a_step, euler_ode, grid},
      {"ddpm", "ancestral, uniform in t; NFE = steps; arXiv:2006.11239", true, 1, data, one_a_step, ddpm, grid},
      {"ddim", "sample.eta of ddpm's noise (0), uniform in t; NFE = steps; arXiv:2010.02502", false, 1, data, one_a_step, ddim, eta},
      {"dpm_solver_fast", "orders 3 ... 3 (2) 1 on eps, uniform in log SNR; NFE = steps; arXiv:2206.00927", false, 3, t_end, one_a_step,
       dpm_solver_fast, grid},
      {"dpm_solver_singlestep", "sample.order (3) on eps, uniform in log SNR; NFE = steps; arXiv:2206.00927", false, 3, t_end, one_a_step,
       dpm_solver_singlestep, orders},
      {"dpm_solver_adaptive", "sample.order (3) on eps, steps by sample.tolerance; NFE as needed; arXiv:2206.00927", false, 3, t_end, nullptr,
       dpm_solver_adaptive, tolerance},
      {"dpm_solver_pp_fast", "orders 3 ... 3 (2) 1 on x0, uniform in t; NFE = steps; arXiv:2211.01095", false, 3, t_end, one_a_step,
       dpm_solver_pp_fast, grid},
      {"dpm_solver_pp_singlestep", "sample.order (2) on x0, uniform in log SNR; NFE = steps; arXiv:2211.01095", false, 2, t_end, one_a_step,
       dpm_solver_pp_singlestep, orders},
      {"dpm_solver_pp_2m", "second-order multistep on x0, uniform in log SNR; NFE = steps; arXiv:2211.01095", false, 2, data, one_a_step,
       dpm_solver_pp_2m, grid},
      {"dpm_solver_pp_3m", "third-order multistep on x0, uniform in log SNR; NFE = steps; arXiv:2211.01095", false, 2, data, one_a_step,
       dpm_solver_pp_3m, grid},
      {"dpm_solver_pp_2m_sde", "the same of order 2 for the reverse SDE; NFE = steps; arXiv:2211.01095", true, 2, data, one_a_step,
       dpm_solver_pp_2m_sde, grid},
      {"dpm_solver_pp_3m_sde", "the same of order 3 for the reverse SDE; NFE = steps; arXiv:2211.01095", true, 2, data, one_a_step,
       dpm_solver_pp_3m_sde, grid},
      {"unipc", "predictor-corrector of sample.order (2) on x0, uniform in log SNR; NFE = steps; arXiv:2302.04867", false, 3, data, one_a_step,
       unipc, orders},
      {"edm_heun", "Heun, sample.churn (0), uniform in (sigma / alpha)^(1/7); NFE = 2 steps - 1; arXiv:2206.00364", false, 2, data, two_but_last,
       edm_heun, churn},
      {"flow_euler", "Euler, uniform in t from pure noise to 0, sample.time_shift; NFE = steps; arXiv:2209.03003", false, 1, zero, one_a_step,
       flow_euler, shift},
      {"flow_heun", "Heun, the same; NFE = 2 steps - 1; arXiv:2209.03003", false, 2, zero, two_but_last, flow_heun, shift},
  }};
  return table;
}

bool SolverRow::goes_by(std::string_view key) const {
  const auto has = [key](const SolverRow& row) { return std::find(row.keys.begin(), row.keys.end(), key) != row.keys.end(); };
  return has(*this) || std::none_of(solver_table().begin(), solver_table().end(), has);
}

const SolverRow& find_solver(const std::string& name) { return find_row(solver_table(), "solver", name); }

void check_solver(const Config& config) {
  const torch::NoGradGuard no_grad;
  const auto schedule = make_schedule(config.diffusion);
  const Denoiser zero = [&](const at::Tensor& x, const std::vector<double>& t) {
    return Prediction{at::zeros_like(x), x / schedule->sigma(t.front())};
  };
  const at::Tensor one = at::ones({1, 1, 1, 1});
  find_solver(config.sample.solver).solve(zero, *schedule, one, [&](std::int64_t) { return one; }, sampler_options(config.sample));
}

SamplerOptions sampler_options(const SampleConfig& config) {
  SamplerOptions options;
  options.num_steps = config.num_steps;
  if (config.t_end > 0) options.t_end = config.t_end;
  options.grid = config.time_grid;
  options.order = config.order;
  options.shift = config.time_shift;
  options.eta = config.eta;
  options.churn = config.churn;
  options.churn_low = config.churn_range[0];
  options.churn_high = config.churn_range[1];
  options.churn_noise = config.churn_noise;
  options.tolerance = config.tolerance;
  return options;
}

}  // namespace uvit
