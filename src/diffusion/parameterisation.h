#pragma once
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "diffusion/denoiser.h"
#include "diffusion/schedule.h"

namespace uvit {

/// alpha and sigma of a batch with one time a sample, [B, 1, ..., 1], and the schedule's sigma_data.
struct Level {
  at::Tensor alpha, sigma;
  double sigma_data;
};

/// In the dtype of `like` [B, ...] and on its device.
Level level_of(const std::vector<double>& t, const Schedule& schedule, const at::Tensor& like);

/// What the network's output means, a row each. With n^2 = alpha^2 + sigma^2 and m^2 = sigma^2 + alpha^2 sigma_data^2:
///   eps: the noise;   x0: the image;   v = (alpha eps - sigma x0) / n (Salimans & Ho, arXiv:2202.00512);   flow = eps - x0 (arXiv:2209.03003);
///   edm: F of D(x) = c_skip x + c_out F (Karras et al., arXiv:2206.00364) at sigma / alpha, F = (sigma x0 / sigma_data - alpha sigma_data eps) / m
struct Parameterisation {
  std::string name;
  std::string description;
  /// What the network is trained to answer.
  at::Tensor (*target)(const at::Tensor& x0, const at::Tensor& eps, const Level& level);
  /// Both readings of a network output at x_t. Reading eps as x0 divides by alpha, reading x0 as eps by sigma; the others are bounded.
  Prediction (*read)(const at::Tensor& output, const at::Tensor& xt, const Level& level);
  /// Error of x0 for a unit error of the output: it turns a weight of squared errors of x0 into one of squared errors of the output.
  double (*x0_error)(double alpha, double sigma, double sigma_data);
};

std::span<const Parameterisation> parameterisation_table();
const Parameterisation& find_parameterisation(const std::string& name);

/// network(x [B, C, H, W], network_time [B] float32) -> output [B, C, H, W], whatever its dtype
using Network = std::function<at::Tensor(const at::Tensor& x, const at::Tensor& network_time)>;

/// The denoiser of a network: calls it with schedule.input_scale(t) x at schedule.network_time(t) and reads its output in the dtype of x. Keeps a
/// reference to both schedule and parameterisation.
Denoiser make_denoiser(Network network, const Schedule& schedule, const Parameterisation& parameterisation);

/// The prediction of x0 at x: eps = (x - alpha x0) / sigma.
Prediction with_x0(const at::Tensor& x0, const at::Tensor& x, const Level& level);

/// What the network sees of x_t: schedule.input_scale(t) x_t, x_t itself where every scale is 1.
at::Tensor network_input(const at::Tensor& xt, const std::vector<double>& t, const Schedule& schedule);

/// One value a sample, [B, 1, ..., 1] to go with `like` [B, ...], in its dtype and on its device.
at::Tensor per_sample(const std::vector<double>& values, const at::Tensor& like);

/// schedule.network_time of each t, rounded once, to float32: [B].
at::Tensor network_times(const std::vector<double>& t, const Schedule& schedule, const at::Device& device);

}  // namespace uvit
