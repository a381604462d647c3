#include <torch/torch.h>

#include "diffusion/loss.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/name_table.h"

namespace uvit {
namespace {

constexpr double kMinSnrGamma = 5;  // of arXiv:2303.09556

double min_snr(double alpha, double sigma, double) { return std::fmin(std::pow(alpha / sigma, 2), kMinSnrGamma); }

double edm(double alpha, double sigma, double sigma_data) { return 1 / std::pow(sigma / alpha, 2) + 1 / (sigma_data * sigma_data); }

at::Tensor at_least_float(const at::Tensor& tensor) { return tensor.scalar_type() == at::kDouble ? tensor : tensor.to(at::kFloat); }

}  // namespace

std::span<const WeightingRow> weighting_table() {
  static const std::array<WeightingRow, 3> table = {{
      {"simple", "1 on the output itself (L_simple), arXiv:2006.11239", nullptr},
      {"min_snr", "min(SNR, 5) on x0, arXiv:2303.09556", min_snr},
      {"edm", "(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 on x0, arXiv:2206.00364", edm},
  }};
  return table;
}

const WeightingRow& find_weighting(const std::string& name) { return find_row(weighting_table(), "weighting", name); }

double loss_weight(const WeightingRow& weighting, const Parameterisation& parameterisation, const Schedule& schedule, double t) {
  if (!weighting.of_x0_error) return 1;
  const double alpha = schedule.alpha(t), sigma = std::fmax(schedule.sigma(t), 1e-12);  // both factors have poles and zeros at sigma = 0
  return weighting.of_x0_error(alpha, sigma, schedule.sigma_data) * std::pow(parameterisation.x0_error(alpha, sigma, schedule.sigma_data), 2);
}

at::Tensor add_noise(const at::Tensor& x0, const at::Tensor& eps, const std::vector<double>& t, const Schedule& schedule) {
  const Level level = level_of(t, schedule, x0);
  return level.alpha * x0 + level.sigma * eps;
}

at::Tensor diffusion_loss(const Network& network, const at::Tensor& x0, const at::Tensor& eps, const std::vector<double>& t, const Schedule& schedule,
                          const Parameterisation& parameterisation, const WeightingRow& weighting) {
  const Level level = level_of(t, schedule, x0);
  const at::Tensor target = parameterisation.target(x0, eps, level);
  const at::Tensor xt = level.alpha * x0 + level.sigma * eps;
  const at::Tensor output = network(network_input(xt, t, schedule), network_times(t, schedule, x0.device()));
  const at::Tensor loss = (at_least_float(target) - at_least_float(output)).square().flatten(1).mean(1);
  if (!weighting.of_x0_error) return loss;
  std::vector<double> weights;
  for (const double time : t) weights.push_back(loss_weight(weighting, parameterisation, schedule, time));
  return loss * per_sample(weights, loss);
}

}  // namespace uvit
