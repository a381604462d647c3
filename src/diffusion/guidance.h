#pragma once
#include <functional>
#include <limits>
#include <utility>

#include "diffusion/denoiser.h"
#include "diffusion/schedule.h"

namespace uvit {

/// How a conditional prediction c is led away from another one u. One convention: eps = u + scale (c - u), and so x0 = u + scale (c - u) too.
/// (The U-ViT papers' w is scale - 1.)
struct GuidanceOptions {
  double scale = 1;
  /// sigma / alpha between which guidance acts, both included; elsewhere c alone (Kynkaanniemi et al., arXiv:2404.07724).
  double low = 0, high = std::numeric_limits<double>::infinity();
  /// Share phi: x0 <- phi x0 std(c.x0) / std(x0) + (1 - phi) x0, a sample's standard deviation each (Lin et al., arXiv:2305.08891, section 3.4; taken
  /// on x0, where over-exposure shows).
  double rescale = 0;
  /// Only the first channels are guided and the others are c's, as DiT's code does with 3 of 4; 0: all.
  std::int64_t channels = 0;
};

/// (x, t) -> {c, u}
using PairDenoiser = std::function<std::pair<Prediction, Prediction>(const at::Tensor& x, const std::vector<double>& t)>;

/// The guided denoiser. Classifier-free (Ho & Salimans, arXiv:2207.12598): u is the same network without its condition. Autoguidance (Karras et al.,
/// arXiv:2406.02507): u is a worse network with the same condition. `both` is called only where some sample is guided; scale 1 is `conditional` itself.
/// Each sample is guided by its own t. Keeps a reference to the schedule.
Denoiser guide(Denoiser conditional, PairDenoiser both, const Schedule& schedule, const GuidanceOptions& options);

/// One call of each.
PairDenoiser pair_of(Denoiser conditional, Denoiser other);

}  // namespace uvit
