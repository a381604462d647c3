#include <torch/torch.h>

#include "diffusion/parameterisation.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "attention/device.h"
#include "core/name_table.h"

namespace uvit {
namespace {

using at::Tensor;

Tensor target_eps(const Tensor&, const Tensor& eps, const Level&) { return eps; }
Prediction read_eps(const Tensor& output, const Tensor& xt, const Level& l) { return {(xt - l.sigma * output) / l.alpha, output}; }
double x0_error_of_eps(double alpha, double sigma, double) { return sigma / alpha; }

Tensor target_x0(const Tensor& x0, const Tensor&, const Level&) { return x0; }
Prediction read_x0(const Tensor& output, const Tensor& xt, const Level& l) { return with_x0(output, xt, l); }
double x0_error_of_x0(double, double, double) { return 1; }

Tensor squared_norm(const Level& l) { return l.alpha.square() + l.sigma.square(); }

Tensor target_v(const Tensor& x0, const Tensor& eps, const Level& l) { return (l.alpha * eps - l.sigma * x0) / squared_norm(l).sqrt(); }
Prediction read_v(const Tensor& output, const Tensor& xt, const Level& l) {
  const Tensor n2 = squared_norm(l), n = n2.sqrt();
  return {(l.alpha / n2) * xt - (l.sigma / n) * output, (l.sigma / n2) * xt + (l.alpha / n) * output};
}
double x0_error_of_v(double alpha, double sigma, double) { return sigma / std::hypot(alpha, sigma); }

Tensor target_flow(const Tensor& x0, const Tensor& eps, const Level&) { return eps - x0; }
Prediction read_flow(const Tensor& output, const Tensor& xt, const Level& l) {
  const Tensor sum = l.alpha + l.sigma;
  return {(xt - l.sigma * output) / sum, (xt + l.alpha * output) / sum};
}
double x0_error_of_flow(double alpha, double sigma, double) { return sigma / (alpha + sigma); }

Tensor squared_spread(const Level& l) { return l.sigma.square() + (l.alpha * l.sigma_data).square(); }

Tensor target_edm(const Tensor& x0, const Tensor& eps, const Level& l) {
  return (l.sigma * x0 / l.sigma_data - l.alpha * eps * l.sigma_data) / squared_spread(l).sqrt();
}
Prediction read_edm(const Tensor& output, const Tensor& xt, const Level& l) {
  const Tensor m2 = squared_spread(l), out = output * (l.sigma_data / m2.sqrt());
  return {(l.alpha * (l.sigma_data * l.sigma_data) / m2) * xt + l.sigma * out, (l.sigma / m2) * xt - l.alpha * out};
}
double x0_error_of_edm(double alpha, double sigma, double sigma_data) { return sigma * sigma_data / std::hypot(sigma, alpha * sigma_data); }

}  // namespace

std::span<const Parameterisation> parameterisation_table() {
  static const std::array<Parameterisation, 5> table = {{
      {"eps", "the noise (the official one), arXiv:2006.11239", target_eps, read_eps, x0_error_of_eps},
      {"x0", "the image", target_x0, read_x0, x0_error_of_x0},
      {"v", "alpha eps - sigma x0, divided by sqrt(alpha^2 + sigma^2), arXiv:2202.00512", target_v, read_v, x0_error_of_v},
      {"flow", "eps - x0, the velocity of rectified flow, arXiv:2209.03003", target_flow, read_flow, x0_error_of_flow},
      {"edm", "F of EDM's x0 = c_skip x + c_out F, arXiv:2206.00364", target_edm, read_edm, x0_error_of_edm},
  }};
  return table;
}

const Parameterisation& find_parameterisation(const std::string& name) { return find_row(parameterisation_table(), "prediction", name); }

Level level_of(const std::vector<double>& t, const Schedule& schedule, const Tensor& like) {
  std::vector<double> alpha, sigma;
  for (const double time : t) {
    alpha.push_back(schedule.alpha(time));
    sigma.push_back(schedule.sigma(time));
  }
  return {per_sample(alpha, like), per_sample(sigma, like), schedule.sigma_data};
}

Prediction with_x0(const Tensor& x0, const Tensor& x, const Level& level) { return {x0, (x - level.alpha * x0) / level.sigma}; }

Denoiser make_denoiser(Network network, const Schedule& schedule, const Parameterisation& parameterisation) {
  return [network = std::move(network), &schedule, &parameterisation](const Tensor& x, const std::vector<double>& t) {
    const Tensor output = network(network_input(x, t, schedule), network_times(t, schedule, x.device())).to(x.scalar_type());
    return parameterisation.read(output, x, level_of(t, schedule, x));
  };
}

Tensor network_input(const Tensor& xt, const std::vector<double>& t, const Schedule& schedule) {
  std::vector<double> scales;
  for (const double time : t) scales.push_back(schedule.input_scale(time));
  const bool scaled = std::any_of(scales.begin(), scales.end(), [](double scale) { return scale != 1; });
  return scaled ? xt * per_sample(scales, xt) : xt;
}

Tensor per_sample(const std::vector<double>& values, const Tensor& like) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(like.dim()), 1);
  shape.front() = static_cast<std::int64_t>(values.size());
  return to_device(at::tensor(values, at::kDouble).to(like.scalar_type()), like.device()).view(shape);
}

Tensor network_times(const std::vector<double>& t, const Schedule& schedule, const at::Device& device) {
  std::vector<double> times;
  for (const double time : t) times.push_back(schedule.network_time(time));
  return to_device(at::tensor(times, at::kDouble).to(at::kFloat), device);
}

}  // namespace uvit
