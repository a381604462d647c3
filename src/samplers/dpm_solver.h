#pragma once
#include <vector>

#include "samplers/exponential_step.h"
#include "samplers/sampler.h"

namespace uvit {

/// The singlestep updates of DPM-Solver (Lu et al., arXiv:2206.00927) and DPM-Solver++ (arXiv:2211.01095), orders 1 to 3. Every sample goes from its own
/// s to its own t (`s`, `t`: [B]); m is the reading at s, evaluate(x, s).
class DpmSolver {
 public:
  /// @param taylor  the coefficients of the Taylor expansion instead of those of the papers' algorithms, which differ in higher order
  DpmSolver(const Denoiser& denoiser, const Schedule& schedule, Reading reading, bool taylor = false)
      : denoiser_(denoiser), schedule_(schedule), reading_(reading), taylor_(taylor) {}

  at::Tensor evaluate(const at::Tensor& x, const std::vector<double>& t);
  at::Tensor first(const at::Tensor& x, const std::vector<double>& s, const std::vector<double>& t, const at::Tensor& m) const;
  /// One call of the denoiser at share r1 of the step in lambda. @param m1 receives its reading
  at::Tensor second(const at::Tensor& x, const std::vector<double>& s, const std::vector<double>& t, const at::Tensor& m, double r1, at::Tensor* m1 = nullptr);
  /// Two calls, at r1 and r2; the first is spared where m1 is given.
  at::Tensor third(const at::Tensor& x, const std::vector<double>& s, const std::vector<double>& t, const at::Tensor& m, double r1, double r2,
                   at::Tensor m1 = {});

  std::int64_t nfe() const { return nfe_; }

 private:
  /// `coefficient` of each sample's step, [B, 1, 1, 1].
  template <class Coefficient>
  at::Tensor coefficients(const at::Tensor& x, const std::vector<double>& s, const std::vector<double>& t, Coefficient coefficient) const;
  std::vector<double> inner(const std::vector<double>& s, const std::vector<double>& t, double r) const;

  const Denoiser& denoiser_;
  const Schedule& schedule_;
  Reading reading_;
  bool taylor_;
  std::int64_t nfe_ = 0;
};

struct SinglestepPlan {
  Reading reading;
  bool taylor = false;
  std::vector<std::int64_t> orders;  ///< of the steps, first to last
  std::string grid;                  ///< where options.grid is "solver"
  /// One grid interval a call of the denoiser, of which a step of order k spans k and has its inner points on the grid (dpm_solver_pp's "fast");
  /// else one interval a step, and inner points at 1/2, or 1/3 and 2/3, of it in lambda.
  bool spanning = false;
  bool denoise = false;  ///< one call more at t_end, whose x0 is the result
};

/// The steps of a plan, from t_start to t_end.
SampleResult singlestep(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const SamplerOptions& options,
                        const SinglestepPlan& plan);

/// 3, 3, ... and a last step or two of lower order, so that num_steps calls are made: the orders of both official "fast" methods.
std::vector<std::int64_t> fast_orders(std::int64_t num_steps);

/// The last readings of a multistep solver, newest first.
struct ReadingHistory {
  std::vector<double> t;
  std::vector<at::Tensor> m;
  void push(double time, at::Tensor reading, std::size_t keep);
};

/// One multistep update from the newest time of the history to t with as many of its readings as `order` asks for and there are
/// (arXiv:2211.01095, algorithm 2; orders 1 to 3). Order 3 is that of the official code: it takes the divided difference of the last three readings, half
/// of their second derivative, for the derivative, so that its error in a step is of order 3 as that of order 2 is.
/// @param step  exponential_step(newest, t), or the SDE's, whose noise the caller adds
at::Tensor multistep_update(const Schedule& schedule, const ExponentialStep& step, const at::Tensor& x, const ReadingHistory& history, std::int64_t order,
                            bool taylor = false);

struct MultistepPlan {
  std::int64_t order;
  Reading reading = Reading::data;
  bool taylor = false;
  double eta = 0;          ///< of the SDE, for the data reading
  bool to_data = true;     ///< one more time on the grid, and the last step takes the x0 read there; else sampling ends at t_end
  std::string grid = "log_snr";
};

/// num_steps calls on as many times; without to_data on num_steps + 1, of which the last one is not evaluated. Step k takes noise draw k.
SampleResult multistep(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource& noise,
                       const SamplerOptions& options, const MultistepPlan& plan);

struct AdaptivePlan {
  std::int64_t order = 3;  ///< 2 or 3: the error is the difference to the update one order lower
  /// As the official code: the batch takes one step, that of its worst sample, of any length. Else each sample takes its own, of at most 1 in lambda.
  bool official = false;
};

/// Steps of adaptive size (arXiv:2206.00927, appendix C), h_init = 0.05, atol = 0.0078 (two grey levels), safety 0.9. Why steps are bounded: near pure
/// noise eps hardly changes, both orders agree to rounding, and the next step asked for may be the whole way, over which both err alike and the estimate
/// does not see it (measured on Gaussian data: an error of 100 on edm, 34 on vp_linear). A sample that has arrived waits for the others and is not
/// changed by them. nfe is that of the slowest sample of the batch.
SampleResult adaptive(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const SamplerOptions& options,
                      const AdaptivePlan& plan);

}  // namespace uvit
