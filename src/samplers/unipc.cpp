#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "samplers/dpm_solver.h"
#include "samplers/solvers.h"
#include "samplers/time_grid.h"

namespace uvit {
namespace {

/// Weights of differences, whose points lie at r, that integrate polynomials up to degree r.size() exactly: sum_i w_i r_i^k = k! phi_{k+1} / B,
/// k = 1 ... r.size(), with B = phi1 (the variant B_2).
std::vector<double> weights(const std::vector<double>& r, const ExponentialStep& step) {
  const std::size_t n = r.size();
  std::array<std::array<double, 4>, 3> a{};  // rows of the system, the right-hand side in column n
  double phi = step.phi2(), factorial = 1;
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t i = 0; i < n; ++i) a[k][i] = std::pow(r[i], static_cast<double>(k));
    a[k][n] = phi * factorial / step.phi1();
    factorial *= static_cast<double>(k + 2);
    phi = phi / step.z - 1 / factorial;
  }
  // No pivot is 0: the points are distinct, so that every leading block of this Vandermonde matrix is regular.
  for (std::size_t k = 0; k < n; ++k) {
    for (std::size_t row = 0; row < n; ++row) {
      if (row == k) continue;
      const double factor = a[row][k] / a[k][k];
      for (std::size_t column = k; column <= n; ++column) a[row][column] -= factor * a[k][column];
    }
  }
  std::vector<double> result;
  for (std::size_t k = 0; k < n; ++k) result.push_back(a[k][n] / a[k][k]);
  return result;
}

/// The step from the newest time of the history to t, with its older readings and, where it is there, the reading at t.
at::Tensor update(const Schedule& schedule, const at::Tensor& x, const ReadingHistory& history, double t, std::int64_t order, const at::Tensor& at_t) {
  const ExponentialStep step = exponential_step(schedule, Reading::data, history.t[0], t);
  std::vector<double> r;
  std::vector<at::Tensor> differences;
  for (std::size_t i = 1; i < std::min(history.m.size(), static_cast<std::size_t>(order)); ++i) {
    r.push_back((schedule.lambda(history.t[i]) - schedule.lambda(history.t[0])) / step.h);
    differences.push_back((history.m[i] - history.m[0]) / r.back());
  }
  if (at_t.defined()) {
    r.push_back(1);
    differences.push_back(at_t - history.m[0]);
  }
  at::Tensor sum = history.m[0];
  // With one difference the official code takes 1/2 in place of the weight, which differs from it in higher order.
  const std::vector<double> w = r.size() == 1 ? std::vector<double>{0.5} : weights(r, step);
  for (std::size_t i = 0; i < r.size(); ++i) sum = sum + differences[i] * w[i];
  return x * step.decay - sum * (step.scale * step.phi1());
}

}  // namespace

SampleResult unipc(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const NoiseSource&, const SamplerOptions& options) {
  const std::vector<double> times = time_grid(schedule, options, "log_snr", options.num_steps);
  const std::int64_t order = options.order > 0 ? options.order : 2;
  SampleResult result{x_init, 0};
  at::Tensor corrected = x_init;  // at the newest time of the history
  ReadingHistory history;
  for (std::int64_t step = 1; step <= options.num_steps; ++step) {
    const double t = times[static_cast<std::size_t>(step - 1)];
    const at::Tensor read = denoiser(result.x0, for_each_row(t, result.x0)).x0;
    ++result.nfe;
    if (step > 1) corrected = update(schedule, corrected, history, t, order, read);
    history.push(t, read, static_cast<std::size_t>(order));
    const bool last = step == options.num_steps;
    result.x0 = last ? read : update(schedule, corrected, history, times[static_cast<std::size_t>(step)], order, {});
    if (options.on_step) options.on_step(step, result.x0);
  }
  return result;
}

}  // namespace uvit
