#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "diffusion/denoiser.h"
#include "diffusion/schedule.h"

namespace uvit {

struct SamplerOptions {
  std::int64_t num_steps = 50;
  double t_start = -1, t_end = -1;  ///< < 0: the schedule's t_max, t_min
  std::string grid = "solver";      ///< row of the table of time grids; "solver": the solver's own. Not for edm_heun, the flow and the adaptive solvers
  std::int64_t order = 0;           ///< of a solver that comes in several orders; 0: its own
  double shift = 1;                 ///< times t in (0, 1) of the uniform grids become s t / (1 + (s - 1) t)
  double eta = 0;                   ///< ddim: 0 adds no noise, 1 as much as ddpm
  double churn = 0;                 ///< edm_heun: S_churn, S_min, S_max, S_noise, and rho of its grid
  double churn_low = 0, churn_high = std::numeric_limits<double>::infinity(), churn_noise = 1, rho = 7;
  double tolerance = 0.05;          ///< dpm_solver_adaptive: the relative one
  /// Called after every update with (steps done of num_steps, x); for progress and trajectories. The last call has step num_steps.
  std::function<void(std::int64_t step, const at::Tensor& x)> on_step;
};

/// The options that a configuration asks for.
SamplerOptions sampler_options(const SampleConfig& config);

struct SampleResult {
  at::Tensor x0;
  std::int64_t nfe = 0;  ///< calls of the denoiser (a guided call counts once)
};

/// The k-th noise draw of a solver, k = 1, 2, ..., shaped like x. Row i depends on the seed of image i and k alone.
using NoiseSource = std::function<at::Tensor(std::int64_t draw)>;

/// A solver: from x_init (at t_start) to x0.
using SolverFunction = SampleResult(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                                    const SamplerOptions& options);

/// Where a solver ends.
enum class SolverEnd {
  data,   ///< at t = 0: the last call of the denoiser is at t_end, and the last step takes what it says as x0
  t_end,  ///< at t_end, with the noise that is left there
  zero,   ///< at t = 0, by a step of its own kind from its last time
};

struct SolverRow {
  std::string name;
  std::string description;
  bool stochastic;                             ///< draws noise with the default options
  /// Of accuracy on the probability flow, of mean and variance where the solver is stochastic. The first step of a multistep solver, of order 1, counts:
  /// it bounds the whole to 2.
  std::int64_t order;
  SolverEnd end;
  std::int64_t (*nfe)(std::int64_t num_steps);  ///< null: known only afterwards
  SolverFunction* solve;
  std::vector<std::string_view> keys;           ///< of [sample]: those it goes by, of those that not every solver goes by

  /// Whether what it draws hangs on the key of [sample]. False for a key of other solvers.
  bool goes_by(std::string_view key) const;
};

std::span<const SolverRow> solver_table();
const SolverRow& find_solver(const std::string& name);

/// Throws Error, as sampling would, where config.sample's solver, time grid, order or times do not fit config.diffusion: the solver runs once, on one
/// number and without a network.
void check_solver(const Config& config);

}  // namespace uvit
