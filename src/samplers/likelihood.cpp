#include <torch/torch.h>

#include "samplers/likelihood.h"

#include <cmath>
#include <numbers>

#include "samplers/time_grid.h"

namespace uvit {
namespace {

struct Flow {
  at::Tensor velocity;    ///< dx / dlambda
  at::Tensor divergence;  ///< [B] float64
};

Flow flow_at(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x, const at::Tensor& signs, double lambda) {
  const double t = schedule.lambda_inverse(lambda);
  const double alpha_slope = schedule.alpha_slope(t), sigma_slope = schedule.sigma_slope(t);
  const double dt = 1 / (alpha_slope / schedule.alpha(t) - sigma_slope / schedule.sigma(t));
  const torch::AutoGradMode grad(true);
  const at::Tensor leaf = x.detach().requires_grad_();
  const Prediction prediction = denoiser(leaf, for_each_row(t, leaf));
  const at::Tensor velocity = prediction.x0 * (alpha_slope * dt) + prediction.eps * (sigma_slope * dt);
  const at::Tensor gradient = torch::autograd::grad({(velocity * signs).sum()}, {leaf})[0];
  return {velocity.detach(), (gradient * signs).to(at::kDouble).flatten(1).sum(1)};
}

}  // namespace

LikelihoodResult log_likelihood(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x, const at::Tensor& probe, double t_low,
                                std::int64_t num_steps) {
  SamplerOptions options;
  options.num_steps = num_steps;
  options.t_end = t_low;
  const TimeRange range = time_range(schedule, options);
  const double first = schedule.lambda(range.end), h = (schedule.lambda(range.start) - first) / static_cast<double>(num_steps);
  const at::Tensor signs = at::where(probe < 0, -1.0, 1.0).to(x.scalar_type());
  at::Tensor state = x, growth = at::zeros({x.size(0)}, at::TensorOptions(at::kDouble).device(x.device()));
  LikelihoodResult result;
  for (std::int64_t step = 0; step < num_steps; ++step) {
    const double lambda = first + h * static_cast<double>(step);
    const Flow here = flow_at(denoiser, schedule, state, signs, lambda);
    const Flow there = flow_at(denoiser, schedule, state + here.velocity * h, signs, lambda + h);
    state = state + (here.velocity + there.velocity) * (0.5 * h);
    growth = growth + (here.divergence + there.divergence) * (0.5 * h);
    result.nfe += 2;
  }
  const double std = schedule.prior_std(), dims = static_cast<double>(x.numel() / x.size(0));
  const at::Tensor squares = state.to(at::kDouble).flatten(1).square().sum(1);
  const at::Tensor log_prior = squares * (-0.5 / (std * std)) - dims * (0.5 * std::log(2 * std::numbers::pi) + std::log(std));
  const at::Tensor total = (log_prior + growth).to(at::kCPU).contiguous();
  result.log_likelihood.assign(total.const_data_ptr<double>(), total.const_data_ptr<double>() + total.numel());
  return result;
}

double likelihood_start(const Schedule& schedule) {
  const bool down_to_0 = schedule.unit_time() && schedule.training_time(0) == 0;
  return down_to_0 ? 1e-5 : schedule.t_min();
}

double bits_per_dim(double log_likelihood, std::int64_t dims) {
  return -log_likelihood / (static_cast<double>(dims) * std::numbers::ln2) + std::log2(127.5);
}

}  // namespace uvit
