#pragma once
#include <filesystem>
#include <optional>
#include <utility>

#include "checkpoint/checkpoint.h"

namespace uvit {

/// Reads the newest checkpoint of a run that is whole; each damaged one before it is named in a warning. @return its folder
/// Throws Error when none is whole.
std::filesystem::path read_newest_sound(const std::filesystem::path& run, CheckpointState& state, CheckpointTensors& tensors);

/// Reads the checkpoint to go back to when training goes wrong: the newest with finite weights that was not saved among bad steps, nor is one that
/// training went back to before without a good step since. One that a signal left between those of the cadence is the second choice: a run that was stopped
/// and resumed goes back to where the undisturbed one does.
/// @param last_good_step  the step after which all were bad. @return its folder; "" for none
std::filesystem::path read_last_good(const std::filesystem::path& run, const Config& config, std::int64_t last_good_step, CheckpointState& state,
                                     CheckpointTensors& tensors);

/// The checkpoint of the lowest held-out loss, and that loss.
std::optional<std::pair<std::filesystem::path, double>> best_checkpoint(const std::filesystem::path& run);

}  // namespace uvit
