#include <torch/torch.h>

#include "samplers/sampler.h"

#include <array>

#include "core/name_table.h"
#include "samplers/solvers.h"

namespace uvit {
namespace {

std::int64_t one_a_step(std::int64_t num_steps) { return num_steps; }

}  // namespace

std::span<const SolverRow> solver_table() {
  static const std::array<SolverRow, 4> table = {{
      {"euler_maruyama_sde", "reverse SDE, uniform in t; NFE = steps; arXiv:2011.13456", true, one_a_step, euler_maruyama_sde},
      {"euler_ode", "probability flow, Euler, uniform in t; NFE = steps; arXiv:2011.13456", false, one_a_step, euler_ode},
      {"ddim", "eta = 0, uniform in t; NFE = steps; arXiv:2010.02502", false, one_a_step, ddim},
      {"dpm_solver_pp_2m", "second-order multistep on x0, uniform in log SNR; NFE = steps; arXiv:2211.01095", false, one_a_step, dpm_solver_pp_2m},
  }};
  return table;
}

const SolverRow& find_solver(const std::string& name) { return find_row(solver_table(), "solver", name); }

}  // namespace uvit
