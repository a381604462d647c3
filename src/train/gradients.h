#pragma once
#include <ATen/core/Tensor.h>

#include "config/config.h"
#include "diffusion/parameterisation.h"
#include "diffusion/schedule.h"
#include "model/uvit.h"
#include "train/training_batch.h"

namespace uvit {

/// Adds loss_scale times the gradient of the mean diffusion loss of the batch to the parameters' gradients, accumulated over micro-batches of
/// train.micro_batch_size. @return that loss, 0-dim float64 on the model's device
at::Tensor add_gradients(UViT& model, const TrainingBatch& batch, const Config& config, const Schedule& schedule, double loss_scale);

}  // namespace uvit
