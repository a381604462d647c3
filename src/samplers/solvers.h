#pragma once
#include "samplers/sampler.h"

namespace uvit {

// What sampler.cpp makes its table of; "uniform in t" is uniform in sigma^(1/7) for edm. Signature: SolverFunction in sampler.h; time grids: time_grid.h.

/// dx = [drift x - g^2 score] dt + g dw, score = -eps / sigma, by Euler-Maruyama steps uniform in t. The k-th step uses noise draw k, the last one none
/// (Song et al., arXiv:2011.13456; grid and noise as U-ViT's official code).
SolverFunction euler_maruyama_sde;
/// The probability flow dx = [drift x - g^2 / 2 score] dt by Euler steps on the same grid.
SolverFunction euler_ode;

/// x_s = alpha_s x0 + sigma_s eps, steps uniform in t, and options.eta (Song et al., arXiv:2010.02502). The last step returns x0.
SolverFunction ddim;
/// Ancestral sampling from q(x_s | x_t, x0) with its own variance (Ho et al., arXiv:2006.11239, "fixed small"), steps uniform in t: ddim of eta = 1.
SolverFunction ddpm;

// dpm_solver.h says what each of these is made of. The first four end at t_end.
/// dpm_solver_pytorch's fast version: third-order steps and a last one or two lower ones, uniform in lambda (Lu et al., arXiv:2206.00927).
SolverFunction dpm_solver_fast;
/// dpm_solver_pytorch without "fast": steps of options.order (3), and a last one of what is left of num_steps.
SolverFunction dpm_solver_singlestep;
/// dpm_solver_pp's method "fast" on x0, as U-ViT's eval_ldm_discrete: uniform in t, inner points on the grid (arXiv:2211.01095).
SolverFunction dpm_solver_pp_fast;
/// dpm_solver_pp's method "singlestep" on x0, of options.order (2: the paper's 2S).
SolverFunction dpm_solver_pp_singlestep;
/// Steps of adaptive size, options.order 2 or 3 (3), each sample its own; num_steps is not used.
SolverFunction dpm_solver_adaptive;
/// Multistep on x0, uniform in lambda: orders 2 and 3, the first steps of lower order, and the last one, to sigma = 0, returns x0 (arXiv:2211.01095).
SolverFunction dpm_solver_pp_2m;
SolverFunction dpm_solver_pp_3m;
/// The same for the reverse SDE, step k with noise draw k (arXiv:2211.01095, section 5, and k-diffusion's 3M form).
SolverFunction dpm_solver_pp_2m_sde;
SolverFunction dpm_solver_pp_3m_sde;

/// UniPC on x0 with B_2(h) = e^h - 1, of options.order (2): a multistep predictor, and a corrector that uses the same call of the denoiser (Zhao et al.,
/// arXiv:2302.04867). The last step returns x0.
SolverFunction unipc;

/// EDM's stochastic sampler (Karras et al., arXiv:2206.00364, algorithm 2) in x / alpha and sigma / alpha: Heun steps on the grid of options.rho, and
/// churn; the last step, to sigma = 0, is Euler's. Step k takes noise draw k where it is churned.
SolverFunction edm_heun;

/// dx/dt = alpha' x0 + sigma' eps by Euler's or Heun's steps, uniform in t from pure noise to t = 0 (Liu et al., arXiv:2209.03003). The last step of Heun's,
/// to sigma = 0, is Euler's.
SolverFunction flow_euler;
SolverFunction flow_heun;

}  // namespace uvit
