#pragma once
#include <cstdint>
#include <span>

#include "data/dataset.h"

namespace uvit {

/// values = scale_factor * (mean + exp(clamp(logvar, -30, 20) / 2) * noise), the noise from (draw.seed, latent, draw.sample); without noise the scaled mean.
/// @param moments  [2 C, h, w]: the means, then the logs of the variances; @param values [C, h, w]
void draw_posterior(std::span<const float> moments, double scale_factor, const SampleDraw& draw, std::span<float> values);

/// Which of `count` captions the sample takes: uniform from (draw.seed, caption, draw.sample); the first without noise.
std::int64_t choose_caption(const SampleDraw& draw, std::int64_t count);

}  // namespace uvit
