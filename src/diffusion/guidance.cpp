#include <torch/torch.h>

#include "diffusion/guidance.h"

#include <algorithm>

#include "diffusion/parameterisation.h"

namespace uvit {
namespace {

using at::Tensor;

/// u + scale (c - u) on the guided channels, c on the others.
Tensor mix(const Tensor& c, const Tensor& u, const GuidanceOptions& options) {
  if (options.channels == 0 || options.channels >= c.size(1)) return u + (c - u) * options.scale;
  const auto split = [&](const Tensor& x) { return x.narrow(1, 0, options.channels); };
  return at::cat({split(u) + (split(c) - split(u)) * options.scale, c.narrow(1, options.channels, c.size(1) - options.channels)}, 1);
}

Tensor sample_std(const Tensor& x) { return x.flatten(1).std(1).view({-1, 1, 1, 1}); }

Prediction rescaled(const Prediction& guided, const Prediction& c, const Tensor& x, const Level& level, double share) {
  return with_x0(guided.x0 * (share * sample_std(c.x0) / sample_std(guided.x0) + (1 - share)), x, level);
}

}  // namespace

Denoiser guide(Denoiser conditional, PairDenoiser both, const Schedule& schedule, const GuidanceOptions& options) {
  if (options.scale == 1) return conditional;
  return [conditional = std::move(conditional), both = std::move(both), &schedule, options](const Tensor& x, const std::vector<double>& t) -> Prediction {
    std::vector<double> inside;
    for (const double time : t) {
      const double level = schedule.sigma(time) / schedule.alpha(time);
      inside.push_back(level >= options.low && level <= options.high ? 1 : 0);
    }
    const auto guided_samples = std::count(inside.begin(), inside.end(), 1.0);
    if (guided_samples == 0) return conditional(x, t);
    const auto [c, u] = both(x, t);
    Prediction guided = {mix(c.x0, u.x0, options), mix(c.eps, u.eps, options)};
    if (options.rescale > 0) guided = rescaled(guided, c, x, level_of(t, schedule, x), options.rescale);
    if (guided_samples == static_cast<std::ptrdiff_t>(t.size())) return guided;
    const Tensor acts = per_sample(inside, x) != 0;
    return {at::where(acts, guided.x0, c.x0), at::where(acts, guided.eps, c.eps)};
  };
}

PairDenoiser pair_of(Denoiser conditional, Denoiser other) {
  return [c = std::move(conditional), u = std::move(other)](const Tensor& x, const std::vector<double>& t) {
    Prediction with = c(x, t);
    return std::pair(std::move(with), u(x, t));
  };
}

}  // namespace uvit
