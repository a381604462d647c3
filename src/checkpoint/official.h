#pragma once
#include <filesystem>
#include <utility>

#include "checkpoint/checkpoint.h"

namespace uvit {

/// True for a folder as the official training code writes one, STEP.ckpt: nnet.pth, nnet_ema.pth, optimizer.pth, lr_scheduler.pth and step.pth.
bool is_official_checkpoint(const std::filesystem::path& path);

/// Reads an official checkpoint whole, to be continued by save_checkpoint and a resumed training: network, EMA (for the one rate of train.ema_decay),
/// both moments of AdamW bit by bit, the step. The learning rate follows from the step.
/// @param config  what the official checkpoint does not say. Throws Error, naming file and key, where it contradicts the checkpoint: shapes, learning rate,
///                betas, eps, weight decay.
std::pair<CheckpointState, CheckpointTensors> load_official_checkpoint(const std::filesystem::path& folder, const Config& config);

/// Writes a checkpoint as the official code does: torch.load(weights_only=True) reads each file, and torch's AdamW and LambdaLR take their states.
/// The first EMA profile becomes nnet_ema.pth. Throws Error when it cannot be written, or the folder exists.
void save_official_checkpoint(const std::filesystem::path& folder, const CheckpointState& state, const CheckpointTensors& tensors);

}  // namespace uvit
