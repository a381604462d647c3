#include <torch/torch.h>

#include "diffusion/parameterisation.h"

#include <array>

#include "core/name_table.h"

namespace uvit {
namespace {

using at::Tensor;

Tensor target_eps(const Tensor&, const Tensor& eps, const Tensor&, const Tensor&) { return eps; }
Prediction read_eps(const Tensor& output, const Tensor& xt, const Tensor& alpha, const Tensor& sigma) {
  return {(xt - sigma * output) / alpha, output};
}

Tensor target_x0(const Tensor& x0, const Tensor&, const Tensor&, const Tensor&) { return x0; }
Prediction read_x0(const Tensor& output, const Tensor& xt, const Tensor& alpha, const Tensor& sigma) {
  return {output, (xt - alpha * output) / sigma};
}

Tensor target_v(const Tensor& x0, const Tensor& eps, const Tensor& alpha, const Tensor& sigma) { return alpha * eps - sigma * x0; }
Prediction read_v(const Tensor& output, const Tensor& xt, const Tensor& alpha, const Tensor& sigma) {
  return {alpha * xt - sigma * output, sigma * xt + alpha * output};
}

Tensor mix(const Tensor& conditional, const Tensor& unconditional, double scale) { return unconditional + (conditional - unconditional) * scale; }

}  // namespace

std::span<const Parameterisation> parameterisation_table() {
  static const std::array<Parameterisation, 3> table = {{
      {"eps", "the noise (the official one)", target_eps, read_eps},
      {"x0", "the image", target_x0, read_x0},
      {"v", "alpha eps - sigma x0, arXiv:2202.00512", target_v, read_v},
  }};
  return table;
}

const Parameterisation& find_parameterisation(const std::string& name) { return find_row(parameterisation_table(), "prediction", name); }

Denoiser make_denoiser(Network network, const Schedule& schedule, const Parameterisation& parameterisation) {
  return [network = std::move(network), &schedule, &parameterisation](const Tensor& x, const std::vector<double>& t) {
    const Tensor output = network(x, network_times(t, schedule, x.device())).to(x.scalar_type());
    std::vector<double> alpha, sigma;
    for (const double time : t) {
      alpha.push_back(schedule.alpha(time));
      sigma.push_back(schedule.sigma(time));
    }
    return parameterisation.read(output, x, per_sample(alpha, x), per_sample(sigma, x));
  };
}

Denoiser guide(Denoiser conditional, Denoiser unconditional, double guidance_scale) {
  if (guidance_scale == 1) return conditional;
  return [c = std::move(conditional), u = std::move(unconditional), guidance_scale](const Tensor& x, const std::vector<double>& t) -> Prediction {
    const Prediction with = c(x, t), without = u(x, t);
    return {mix(with.x0, without.x0, guidance_scale), mix(with.eps, without.eps, guidance_scale)};
  };
}

Tensor per_sample(const std::vector<double>& values, const Tensor& like) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(like.dim()), 1);
  shape.front() = static_cast<std::int64_t>(values.size());
  return at::tensor(values, at::kDouble).to(like.device(), like.scalar_type()).view(shape);
}

Tensor network_times(const std::vector<double>& t, const Schedule& schedule, const at::Device& device) {
  std::vector<double> times;
  for (const double time : t) times.push_back(schedule.network_time(time));
  return at::tensor(times, at::kDouble).to(device, at::kFloat);
}

}  // namespace uvit
