#pragma once
#include <functional>
#include <span>
#include <string>

#include "diffusion/denoiser.h"
#include "diffusion/schedule.h"

namespace uvit {

/// What the network's output means, a row each:
///   eps: the noise;   x0: the image;   v = alpha eps - sigma x0 (Salimans & Ho, arXiv:2202.00512)
struct Parameterisation {
  std::string name;
  std::string description;
  /// Target of L_simple from x0, eps, alpha, sigma ([B, 1, 1, 1]).
  at::Tensor (*target)(const at::Tensor& x0, const at::Tensor& eps, const at::Tensor& alpha, const at::Tensor& sigma);
  /// Both readings of a network output at x_t. Reading eps as x0 divides by alpha, reading x0 as eps by sigma.
  Prediction (*read)(const at::Tensor& output, const at::Tensor& xt, const at::Tensor& alpha, const at::Tensor& sigma);
};

std::span<const Parameterisation> parameterisation_table();
const Parameterisation& find_parameterisation(const std::string& name);

/// network(x [B, C, H, W], network_time [B] float32) -> output [B, C, H, W], whatever its dtype
using Network = std::function<at::Tensor(const at::Tensor& x, const at::Tensor& network_time)>;

/// The denoiser of a network: calls it at schedule.network_time(t) and reads its output in the dtype of x. Keeps a reference to both schedule
/// and parameterisation.
Denoiser make_denoiser(Network network, const Schedule& schedule, const Parameterisation& parameterisation);

/// Classifier-free guidance (Ho & Salimans, arXiv:2207.12598), eps = u + s (c - u) on all channels, and so x0 = u + s (c - u) too. s = 1 is
/// `conditional` itself: the other is never called. (The U-ViT papers' w is s - 1.)
Denoiser guide(Denoiser conditional, Denoiser unconditional, double guidance_scale);

/// One value a sample, [B, 1, ..., 1] to go with `like` [B, ...], in its dtype and on its device.
at::Tensor per_sample(const std::vector<double>& values, const at::Tensor& like);

/// schedule.network_time of each t, rounded once, to float32: [B].
at::Tensor network_times(const std::vector<double>& t, const Schedule& schedule, const at::Device& device);

}  // namespace uvit
