#pragma once
#include <string>
#include <utility>
#include <vector>

#include "config/config.h"
#include "diffusion/schedule.h"
#include "model/uvit.h"
#include "train/training_batch.h"

namespace uvit {

/// What one forward pass shows of a network that may be going wrong.
struct ForwardReport {
  /// Each block in running order ("in_blocks.0", "mid_block", ...) and the largest |scale q k^T| of its attention; infinite or NaN where q or k are.
  std::vector<std::pair<std::string, double>> max_scores;
  /// The first tensor that is not finite, and where: "the output of aten::linear in in_blocks.1.attn.qkv"; empty where all are.
  std::string first_not_finite;

  double max_score() const;  ///< the largest of all blocks; NaN where one is
};

/// Runs the loss of the batch's first `images` images without gradients, and watches the operations as they pass through torch's dispatcher: the
/// network knows nothing of it, and pays nothing when it is not watched.
/// @param every_tensor  look for first_not_finite too, through every operation's operands and results; else at the attention's queries and keys alone
ForwardReport inspect_forward(UViT& model, const TrainingBatch& batch, const Config& config, const Schedule& schedule, std::int64_t images,
                              bool every_tensor);

/// The batch, parameter, forward tensor or gradient that is not finite first in the order of a training step, in words; empty where all are.
/// @param forward  of the whole batch, with every_tensor; gradients are those that the parameters hold
std::string first_not_finite(const UViT& model, const TrainingBatch& batch, const ForwardReport& forward);

}  // namespace uvit
