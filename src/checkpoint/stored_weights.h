#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "io/host_tensor.h"

namespace uvit {

/// The weights that a CHECKPOINT names, as they lie in their file.
struct StoredWeights {
  TensorFile tensors;
  std::filesystem::path file;
  std::string name;                      ///< "ema_0.9999", "model", or the file's name
  std::optional<CheckpointState> state;  ///< of the step folder that the file lies in; none for a file by itself
};

/// Finds and reads them: run folder, step folder, .safetensors or .pth file, official checkpoint folder. @param ema  as for load_model
/// Throws Error naming the path, or the damaged file and tensor.
StoredWeights read_weights(const std::filesystem::path& path, bool ema);

/// Copies the EMA weights of a checkpoint into the model, to train on from them. Where the checkpoint is of images of another size, the patches' part
/// of pos_embed is interpolated (interpolate_pos_embed); a file by itself, which does not say its image, is taken to be of square ones.
/// Throws Error as read_weights does, and for whatever else differs, naming the parameter and both shapes.
void load_initial_weights(UViT& model, const std::filesystem::path& path);

}  // namespace uvit
