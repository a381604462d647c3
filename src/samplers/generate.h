#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "config/config.h"
#include "distributed/process_group.h"
#include "model/uvit.h"
#include "samplers/sampler.h"

namespace uvit {

/// A worse network that guides away from itself (autoguidance, arXiv:2406.02507): same images, same classes, same schedule.
struct GuideModel {
  UViT* model = nullptr;
  Config config;
};

/// One call of the denoiser as image `index` sees it: x_t / sqrt(alpha^2 + sigma^2) and the x0 predicted from it, [C, H, W] each.
using CallSink = std::function<void(std::size_t index, double t, const at::Tensor& state, const at::Tensor& x0)>;

/// What to draw: image i has its own seed and label, and depends on nothing else.
struct GenerateRequest {
  std::vector<std::uint64_t> seeds;
  std::vector<std::int64_t> labels;  ///< empty for an unconditional model, else one a seed

  /// Interpolation, one value an image where it is not empty: the initial noise is the spherical one between seed and other_seed, the prediction the
  /// linear one between those for label and other_label.
  std::vector<std::uint64_t> other_seeds;
  std::vector<double> seed_share;
  std::vector<std::int64_t> other_labels;
  std::vector<double> label_share;

  /// An image [C, H, W] in [-1, 1] to start from, noised to `strength` in (0, 1] of the way to noise (SDEdit, arXiv:2108.01073): variations.
  at::Tensor image;
  double strength = 1;
  at::Tensor mask;  ///< [1, H, W]: where it is not 0 the result is `image` (inpainting); undefined: nowhere

  at::Tensor contexts;       ///< [images, tokens, dim] float32 for a model with context (text) tokens
  at::Tensor empty_context;  ///< [tokens, dim], of the empty text, for guidance

  /// Latents [B, c, h, w] to images [B, C, H, W]; empty where the model draws images itself. Each row of its result must depend on the same row alone.
  std::function<at::Tensor(const at::Tensor& latents)> decode;

  GuideModel guide;  ///< autoguidance in place of classifier-free guidance, where it has a model
  CallSink on_call;

  ProcessGroup* processes = nullptr;  ///< that draw together, each of which calls generate with the same request; rank 0's sink gets all images

  /// Asked between two steps of the solver; true in any process ends generate in all of them, with GenerateReport::stopped.
  std::function<bool()> stop;

  bool cuda_graph = true;  ///< on a GPU: record the network's pass once and replay it
};

/// Images in [-1, 1] (not clamped), [C, H, W] each, decoded where the request says how; called in order, index by index.
using ImageSink = std::function<void(std::size_t index, const at::Tensor& image)>;

struct GenerateReport {
  std::int64_t nfe = 0;  ///< of the slowest image, where the solver adapts
  double seconds = 0;
  bool stopped = false;  ///< by the request's `stop`; only some of the images were drawn
};

/// Samples `request` with config.sample and config.diffusion. The network always sees micro-batches of config.sample.batch_size images (twice as many
/// rows with guidance_one_batch), the last one padded, so an image is bit-equal whatever the number, order or place (same threads, dtype, back end).
/// Throws Error for a label out of range, guidance on a model trained without label dropout, or a guide, image or mask that does not fit.
GenerateReport generate(UViT& model, const Config& config, const GenerateRequest& request, const ImageSink& sink,
                        const std::function<void(std::int64_t done)>& on_progress = {});

}  // namespace uvit
