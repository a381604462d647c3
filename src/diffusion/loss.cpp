#include <torch/torch.h>

#include "diffusion/loss.h"

namespace uvit {
namespace {

struct Level {
  at::Tensor alpha, sigma;
};

Level levels(const std::vector<double>& t, const Schedule& schedule, const at::Tensor& like) {
  std::vector<double> alpha, sigma;
  for (const double time : t) {
    alpha.push_back(schedule.alpha(time));
    sigma.push_back(schedule.sigma(time));
  }
  return {per_sample(alpha, like), per_sample(sigma, like)};
}

at::Tensor at_least_float(const at::Tensor& tensor) { return tensor.scalar_type() == at::kDouble ? tensor : tensor.to(at::kFloat); }

}  // namespace

at::Tensor add_noise(const at::Tensor& x0, const at::Tensor& eps, const std::vector<double>& t, const Schedule& schedule) {
  const Level level = levels(t, schedule, x0);
  return level.alpha * x0 + level.sigma * eps;
}

at::Tensor simple_loss(const Network& network, const at::Tensor& x0, const at::Tensor& eps, const std::vector<double>& t, const Schedule& schedule,
                       const Parameterisation& parameterisation) {
  const Level level = levels(t, schedule, x0);
  const at::Tensor target = parameterisation.target(x0, eps, level.alpha, level.sigma);
  const at::Tensor output = network(level.alpha * x0 + level.sigma * eps, network_times(t, schedule, x0.device()));
  return (at_least_float(target) - at_least_float(output)).square().flatten(1).mean(1);
}

}  // namespace uvit
