#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "diffusion/denoiser.h"
#include "diffusion/schedule.h"

namespace uvit {

struct SamplerOptions {
  std::int64_t num_steps = 50;
  double t_start = -1, t_end = -1;  ///< < 0: the schedule's t_max, t_min
  /// Called after every step with (step, x); for progress and trajectories.
  std::function<void(std::int64_t step, const at::Tensor& x)> on_step;
};

struct SampleResult {
  at::Tensor x0;
  std::int64_t nfe = 0;  ///< calls of the denoiser (a guided call counts once)
};

/// The k-th noise draw of a solver, k = 1, 2, ..., shaped like x. Row i depends on the seed of image i and k alone.
using NoiseSource = std::function<at::Tensor(std::int64_t draw)>;

/// A solver: from x_init (at t_start) to x0.
using Solver = SampleResult (*)(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                                const SamplerOptions& options);

struct SolverRow {
  std::string name;
  std::string description;
  bool stochastic;
  std::int64_t (*nfe)(std::int64_t num_steps);
  Solver solve;
};

/// euler_maruyama_sde, euler_ode, ddim, dpm_solver_pp_2m
std::span<const SolverRow> solver_table();
const SolverRow& find_solver(const std::string& name);

}  // namespace uvit
