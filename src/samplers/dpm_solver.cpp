#include <torch/torch.h>

#include "samplers/dpm_solver.h"

#include "diffusion/parameterisation.h"
#include "samplers/time_grid.h"

namespace uvit {

using Times = std::vector<double>;

at::Tensor DpmSolver::evaluate(const at::Tensor& x, const Times& t) {
  ++nfe_;
  Prediction prediction = denoiser_(x, t);
  return reading_ == Reading::data ? prediction.x0 : prediction.eps;
}

template <class Coefficient>
at::Tensor DpmSolver::coefficients(const at::Tensor& x, const Times& s, const Times& t, Coefficient coefficient) const {
  std::vector<double> values;
  for (std::size_t i = 0; i < s.size(); ++i) values.push_back(coefficient(exponential_step(schedule_, reading_, s[i], t[i])));
  return per_sample(values, x);
}

Times DpmSolver::inner(const Times& s, const Times& t, double r) const {
  Times times;
  for (std::size_t i = 0; i < s.size(); ++i) {
    const double first = schedule_.lambda(s[i]);
    times.push_back(schedule_.lambda_inverse(first + r * (schedule_.lambda(t[i]) - first)));
  }
  return times;
}

at::Tensor DpmSolver::first(const at::Tensor& x, const Times& s, const Times& t, const at::Tensor& m) const {
  const at::Tensor decay = coefficients(x, s, t, [](const ExponentialStep& e) { return e.decay; });
  return decay * x - coefficients(x, s, t, [](const ExponentialStep& e) { return e.scale * e.phi1(); }) * m;
}

at::Tensor DpmSolver::second(const at::Tensor& x, const Times& s, const Times& t, const at::Tensor& m, double r1, at::Tensor* m1) {
  const Times s1 = inner(s, t, r1);
  const at::Tensor inside = evaluate(first(x, s, s1, m), s1);
  if (m1) *m1 = inside;
  const at::Tensor slope = coefficients(x, s, t, [&](const ExponentialStep& e) { return e.scale * (taylor_ ? e.phi2() : 0.5 * e.phi1()) / r1; });
  return first(x, s, t, m) - slope * (inside - m);
}

at::Tensor DpmSolver::third(const at::Tensor& x, const Times& s, const Times& t, const at::Tensor& m, double r1, double r2, at::Tensor m1) {
  const Times s1 = inner(s, t, r1), s2 = inner(s, t, r2);
  if (!m1.defined()) m1 = evaluate(first(x, s, s1, m), s1);
  const at::Tensor to_s2 = coefficients(x, s, s2, [&](const ExponentialStep& e) { return e.scale * e.phi2() * r2 / r1; });
  const at::Tensor m2 = evaluate(first(x, s, s2, m) - to_s2 * (m1 - m), s2);
  const at::Tensor phi2 = coefficients(x, s, t, [](const ExponentialStep& e) { return e.scale * e.phi2(); });
  if (!taylor_) return first(x, s, t, m) - phi2 * ((m2 - m) / r2);
  const at::Tensor d1 = (m1 - m) / r1, d2 = (m2 - m) / r2;
  const at::Tensor phi3 = coefficients(x, s, t, [](const ExponentialStep& e) { return e.scale * e.phi3(); });
  return first(x, s, t, m) - phi2 * ((r2 * d1 - r1 * d2) / (r2 - r1)) - phi3 * (2 * (d2 - d1) / (r2 - r1));
}

std::vector<std::int64_t> fast_orders(std::int64_t num_steps) {
  std::vector<std::int64_t> orders(static_cast<std::size_t>(num_steps / 3), 3);
  if (num_steps % 3 != 0) {
    orders.push_back(num_steps % 3);
  } else if (!orders.empty()) {
    orders.back() = 2;
    orders.push_back(1);
  }
  return orders;
}

SampleResult singlestep(const Denoiser& denoiser, const Schedule& schedule, const at::Tensor& x_init, const SamplerOptions& options,
                        const SinglestepPlan& plan) {
  const auto intervals = plan.spanning ? options.num_steps : static_cast<std::int64_t>(plan.orders.size());
  const Times times = time_grid(schedule, options, plan.grid, intervals + 1);
  DpmSolver solver(denoiser, schedule, plan.reading, plan.taylor);
  at::Tensor x = x_init;
  std::size_t at = 0;
  for (const std::int64_t order : plan.orders) {
    const std::size_t next = at + (plan.spanning ? static_cast<std::size_t>(order) : 1);
    const double first = schedule.lambda(times[at]), h = schedule.lambda(times[next]) - first;
    const auto share = [&](std::size_t k) {
      return plan.spanning ? (schedule.lambda(times[at + k]) - first) / h : static_cast<double>(k) / static_cast<double>(order);
    };
    const Times s = for_each_row(times[at], x), t = for_each_row(times[next], x);
    const at::Tensor m = solver.evaluate(x, s);
    x = order == 1 ? solver.first(x, s, t, m) : order == 2 ? solver.second(x, s, t, m, share(1)) : solver.third(x, s, t, m, share(1), share(2));
    at = next;
    if (options.on_step) options.on_step(solver.nfe(), x);
  }
  if (plan.denoise) x = denoiser(x, for_each_row(times.back(), x)).x0;
  return {x, solver.nfe() + (plan.denoise ? 1 : 0)};
}

}  // namespace uvit
