#pragma once
#include <ATen/core/Tensor.h>

#include "config/config.h"
#include "diffusion/parameterisation.h"
#include "diffusion/schedule.h"
#include "distributed/gradient_sum.h"
#include "model/uvit.h"
#include "train/alignment.h"
#include "train/training_batch.h"

namespace uvit {

/// Micro-batches in which a process computes its share of a global batch: of train.micro_batch_size images, or all at once.
std::int64_t micro_batches_of(const TrainConfig& train, int processes);

/// Mean losses of the global batch, 0-dim float64 on the model's device.
struct BatchLosses {
  at::Tensor diffusion;
  at::Tensor alignment;  ///< alignment_loss, before its weight; undefined without an encoder
};

/// The parameters' gradients, which must be undefined, become loss_scale times the gradient of the mean diffusion loss of the global batch (with an
/// encoder: of diffusion + train.align_weight * alignment), summed over micro-batches and processes by `sum`.
/// @param batch  this process's share of the global batch; @param encoder  may be null
/// Throws Interrupted (interrupt.h), in all processes, between two micro-batches after a signal in any: the weights are still those before the step.
BatchLosses add_gradients(UViT& model, const TrainingBatch& batch, const Config& config, const Schedule& schedule, double loss_scale, GradientSum& sum,
                          const AlignmentEncoder* encoder = nullptr);

}  // namespace uvit
