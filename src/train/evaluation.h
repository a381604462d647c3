#pragma once
#include <ATen/core/Tensor.h>

#include <memory>

#include "checkpoint/tensor_convert.h"
#include "config/config.h"
#include "data/dataset.h"
#include "diffusion/parameterisation.h"
#include "distributed/process_group.h"
#include "model/uvit.h"

namespace uvit {

/// While it lives, the model's parameters hold `weights` (of the same names and order): no second network is kept for EMA weights.
class WeightsInPlace {
 public:
  WeightsInPlace(const NamedTensors& parameters, const NamedTensors& weights);
  ~WeightsInPlace();
  WeightsInPlace(const WeightsInPlace&) = delete;
  WeightsInPlace& operator=(const WeightsInPlace&) = delete;

 private:
  NamedTensors parameters_;
  std::vector<at::Tensor> kept_;
};

/// Images of the test split with one fixed t and noise each, drawn from (seed, evaluation, position): two losses differ by the weights alone.
class HeldOut {
 public:
  /// Reads config.train.eval_images images, spread evenly over the split, into memory.
  /// Throws Error for an image that cannot be read, unless data.on_error = "skip".
  explicit HeldOut(const Config& config);
  /// Mean loss over the images, in micro-batches that all processes share; no label is dropped. Called by every process, and of equal bits in each,
  /// whatever their number. Throws Interrupted (interrupt.h), in all of them, after a signal in any.
  double loss(UViT& model, const Schedule& schedule, const Parameterisation& parameterisation, ProcessGroup& processes) const;
  /// The same by noise level: element i is the mean loss at times of the training law's draws u in [i, i + 1) / parts, with the noise of loss().
  std::vector<double> losses_by_level(UViT& model, const Schedule& schedule, const Parameterisation& parameterisation, std::int64_t parts) const;
  /// Images a loss is the mean over.
  std::int64_t size() const { return static_cast<std::int64_t>(positions_.size()); }

 private:
  /// Mean loss where every image's u is moved to the given one of `parts` equal parts of [0, 1).
  double mean_loss(UViT& model, const Schedule& schedule, const Parameterisation& parameterisation, std::int64_t part, std::int64_t parts,
                   ProcessGroup& processes) const;

  Config config_;
  at::Tensor images_;                ///< [N, C, H, W]: uint8 pixels, or float32 latents
  at::Tensor contexts_;              ///< [N, tokens, dim]; undefined for a model without context
  std::vector<std::int64_t> labels_;
  std::vector<std::int64_t> positions_;  ///< place of each image in the test split
};

/// Contexts of these images' first captions, [n, tokens, dim] float32.
at::Tensor read_contexts(const Dataset& dataset, const std::vector<std::int64_t>& positions);

/// The network of one micro-batch as the loss wants it: labels and context bound, run under autocast of `precision`.
/// @param aligned  where it is not null: gets the projected patches of every call (UViT::forward)
Network bind_network(UViT& model, const std::string& precision, const at::Tensor& labels, const at::Tensor& context = {}, at::Tensor* aligned = nullptr);

}  // namespace uvit
