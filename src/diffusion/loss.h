#pragma once
#include <vector>

#include "diffusion/parameterisation.h"

namespace uvit {

/// x_t = alpha(t) x0 + sigma(t) eps with one t a sample.
at::Tensor add_noise(const at::Tensor& x0, const at::Tensor& eps, const std::vector<double>& t, const Schedule& schedule);

/// L_simple a sample: mean over C, H, W of (target - network(x_t, network_time(t)))^2, in float32 or better.
/// @param x0, eps [B, C, H, W]; @param t [B]; @return [B]
at::Tensor simple_loss(const Network& network, const at::Tensor& x0, const at::Tensor& eps, const std::vector<double>& t, const Schedule& schedule,
                       const Parameterisation& parameterisation);

}  // namespace uvit
