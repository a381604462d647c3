#pragma once
#include <span>
#include <string>
#include <vector>

#include "diffusion/parameterisation.h"

namespace uvit {

/// Weight of a sample's squared error of x0, a row each. "simple" weighs the network's output itself, with 1.
struct WeightingRow {
  std::string name;
  std::string description;
  double (*of_x0_error)(double alpha, double sigma, double sigma_data);  ///< null: simple
};

std::span<const WeightingRow> weighting_table();
const WeightingRow& find_weighting(const std::string& name);

/// What a sample's squared error of the network output is multiplied by: of_x0_error times parameterisation.x0_error^2. At t = 0 its limit.
double loss_weight(const WeightingRow& weighting, const Parameterisation& parameterisation, const Schedule& schedule, double t);

/// x_t = alpha(t) x0 + sigma(t) eps with one t a sample.
at::Tensor add_noise(const at::Tensor& x0, const at::Tensor& eps, const std::vector<double>& t, const Schedule& schedule);

/// The loss a sample: weight * mean over C, H, W of (target - network(x_t, network_time(t)))^2, in float32 or better.
/// @param x0, eps [B, C, H, W]; @param t [B]; @return [B]
at::Tensor diffusion_loss(const Network& network, const at::Tensor& x0, const at::Tensor& eps, const std::vector<double>& t, const Schedule& schedule,
                          const Parameterisation& parameterisation, const WeightingRow& weighting = find_weighting("simple"));

}  // namespace uvit
