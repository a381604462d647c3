#pragma once
#include <functional>
#include <span>
#include <string>

#include "diffusion/denoiser.h"
#include "diffusion/schedule.h"

namespace uvit {

/// What the network's output means, a row each:
///   eps: the noise;   x0: the image;   v = alpha eps - sigma x0
struct Parameterisation {
  std::string name;
  std::string description;
  /// Target of L_simple from x0, eps, alpha, sigma ([B, 1, 1, 1]).
  at::Tensor (*target)(const at::Tensor& x0, const at::Tensor& eps, const at::Tensor& alpha, const at::Tensor& sigma);
  /// Reads a network output at x_t.
  Prediction (*read)(const at::Tensor& output, const at::Tensor& xt, const at::Tensor& alpha, const at::Tensor& sigma);
};

std::span<const Parameterisation> parameterisation_table();
const Parameterisation& find_parameterisation(const std::string& name);

/// network(x, network_time [B]) -> output
using Network = std::function<at::Tensor(const at::Tensor& x, const at::Tensor& network_time)>;

/// The denoiser of a network: calls it at schedule.network_time(t) and reads its output.
Denoiser make_denoiser(Network network, const Schedule& schedule, const Parameterisation& parameterisation);

/// Classifier-free guidance, eps = u + s (c - u) on all channels, s = 1 calls `conditional` alone. (The U-ViT papers' w is s - 1.)
Denoiser guide(Denoiser conditional, Denoiser unconditional, const Schedule& schedule, double guidance_scale);

/// One value a sample, [B, 1, 1, 1], in the dtype and on the device of `like`.
at::Tensor per_sample(const std::vector<double>& values, const at::Tensor& like);

}  // namespace uvit
