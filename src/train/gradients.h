#pragma once
#include <ATen/core/Tensor.h>

#include "config/config.h"
#include "diffusion/parameterisation.h"
#include "diffusion/schedule.h"
#include "distributed/gradient_sum.h"
#include "model/uvit.h"
#include "train/training_batch.h"

namespace uvit {

/// Micro-batches in which a process computes its share of a global batch: of train.micro_batch_size images, or all at once.
std::int64_t micro_batches_of(const TrainConfig& train, int processes);

/// The parameters' gradients, which must be undefined, become loss_scale times the gradient of the mean diffusion loss of the global batch, summed over
/// micro-batches and processes by `sum`. @param batch  this process's share of the global batch
/// @return that loss, 0-dim float64 on the model's device
at::Tensor add_gradients(UViT& model, const TrainingBatch& batch, const Config& config, const Schedule& schedule, double loss_scale, GradientSum& sum);

}  // namespace uvit
