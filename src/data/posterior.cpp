#include "data/posterior.h"

#include <algorithm>
#include <cmath>

#include "core/random.h"

namespace uvit {

void draw_posterior(std::span<const float> moments, double scale_factor, const SampleDraw& draw, std::span<float> values) {
  const auto scale = static_cast<float>(scale_factor);
  const std::span<const float> mean = moments.first(values.size()), logvar = moments.subspan(values.size());
  if (!draw.noise) {
    std::transform(mean.begin(), mean.end(), values.begin(), [scale](float m) { return scale * m; });
    return;
  }
  RandomStream(draw.seed, RandomPurpose::latent, draw.sample).fill_normal(values);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = scale * (mean[i] + std::exp(0.5F * std::clamp(logvar[i], -30.0F, 20.0F)) * values[i]);
}

std::int64_t choose_caption(const SampleDraw& draw, std::int64_t count) {
  if (!draw.noise || count < 2) return 0;
  const double u = RandomStream(draw.seed, RandomPurpose::caption, draw.sample).uniform();
  return std::min(static_cast<std::int64_t>(u * static_cast<double>(count)), count - 1);
}

}  // namespace uvit
