#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "config/config.h"
#include "model/uvit.h"
#include "samplers/sampler.h"

namespace uvit {

/// What to draw: image i has its own seed and label, and depends on nothing else.
struct GenerateRequest {
  std::vector<std::uint64_t> seeds;
  std::vector<std::int64_t> labels;  ///< empty for an unconditional model, else one a seed
};

/// Images in [-1, 1] (not clamped), [C, H, W] each; called in order, index by index.
using ImageSink = std::function<void(std::size_t index, const at::Tensor& image)>;

struct GenerateReport {
  std::int64_t nfe = 0;
  double seconds = 0;
};

/// Samples `request` with config.sample (solver, num_steps, guidance_scale, batch_size, precision) and config.diffusion. The network always
/// sees micro-batches of config.sample.batch_size images, the last one padded, so an image is bit-equal whatever the number, order or place
/// (same threads, dtype, back end). Throws Error for a label out of range, or guidance on a model trained without label dropout.
GenerateReport generate(UViT& model, const Config& config, const GenerateRequest& request, const ImageSink& sink,
                        const std::function<void(std::int64_t done)>& on_progress = {});

}  // namespace uvit
