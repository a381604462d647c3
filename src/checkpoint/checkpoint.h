#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/tensor_convert.h"
#include "config/config.h"
#include "model/uvit.h"

namespace uvit {

/// What is known of a step whose log line, evaluation or pictures a signal left to be done when training goes on.
struct UnfinishedStep {
  double lr = 0;                   ///< the rate it used
  std::optional<double> loss, grad_norm, update_ratio, max_attention_score, align_loss;  ///< for its line of metrics.jsonl, where it has one
};

/// What state.json says beside the tensors. Format 1.
struct CheckpointState {
  std::int64_t step = 0;           ///< optimizer steps done
  std::int64_t images_seen = 0;    ///< also the data position: the global sample index of the next image
  Config config;
  AttentionPlan plan;
  double eval_loss = -1;           ///< held-out loss at this step; < 0: not taken
  std::vector<std::string> class_names;
  std::int64_t threads = 0;        ///< intra-op threads of the run: bits repeat only at an equal count
  double loss_sum = 0;             ///< training losses summed since the last line of metrics.jsonl, and how many,
  std::int64_t loss_count = 0;     ///< so that the next line of a resumed run is that of the uninterrupted one
  std::int64_t skipped_steps = 0;  ///< steps left out so far, for a loss or gradients that were not finite
  std::int64_t bad_steps_in_a_row = 0;  ///< of them, those at the end; 0 in a good checkpoint
  std::int64_t rollbacks = 0;      ///< times that training went back to a checkpoint
  bool rolled_back_to = false;     ///< training went back to this one: written anew, with the place in the data moved on
  std::optional<UnfinishedStep> unfinished;
};

/// Everything of one training moment. ema: profile ("0.9999") -> parameters.
struct CheckpointTensors {
  NamedTensors model;
  std::map<std::string, NamedTensors> ema;
  NamedTensors optimizer;
};

/// Writes RUN/checkpoints/step-N/{model,ema_<profile>,optimizer}.safetensors and state.json (with a CRC-32 per tensor) under step-N.tmp, syncs,
/// renames, and points RUN/checkpoints/latest at it. Throws Error (no space, not writable) and leaves nothing half-written. @return the step folder
std::filesystem::path save_checkpoint(const std::filesystem::path& run, const CheckpointState& state, const CheckpointTensors& tensors);
/// Points RUN/checkpoints/<name> at a step folder (a relative symbolic link, replaced atomically).
void link_checkpoint(const std::filesystem::path& run, const std::string& name, const std::filesystem::path& step_folder);
/// Removes the oldest step folders beyond `keep` (0: keeps all) but those that latest and best point at, and what a crash left of a save.
void prune_checkpoints(const std::filesystem::path& run, std::int64_t keep);

/// The name of an EMA profile: its rate, "0.9999". Its file is ema_<profile>.safetensors.
std::string ema_profile(double rate);

/// The step folders to go on from, the best choice first: the one that `latest` names (where the link is broken, the newest), then those before it.
/// Puts away what a crash left of a save.
std::vector<std::filesystem::path> resumable_checkpoints(const std::filesystem::path& run);
/// Removes the step folders after `step`. A link that led to one of them leads nowhere then.
void remove_checkpoints_beyond(const std::filesystem::path& run, std::int64_t step);

/// True when RUN/checkpoints holds a step folder.
bool has_checkpoints(const std::filesystem::path& run);
/// The step folder that a run folder (its latest), or a step folder, names. Throws Error where there is none.
std::filesystem::path find_step_folder(const std::filesystem::path& path);
/// state.json of a step folder. Throws Error where it is missing, damaged, foreign, or of another format.
CheckpointState load_state(const std::filesystem::path& step_folder);
/// The run folder of a file or folder below RUN/checkpoints; empty for anything else.
std::filesystem::path run_of(const std::filesystem::path& path);
/// Reads and verifies (checksums, format) one step folder. Throws Error naming the damaged file or tensor.
std::pair<CheckpointState, CheckpointTensors> load_checkpoint(const std::filesystem::path& step_folder);

/// A network ready to sample from.
struct LoadedModel {
  std::shared_ptr<UViT> model;
  Config config;
  std::vector<std::string> class_names;
  std::int64_t step = -1;        ///< -1: not known
  std::string weights;           ///< "ema_0.9999", "model", or the file's name
  std::string weights_hash;      ///< SHA-256 of the weights file
  std::filesystem::path file;
  std::shared_ptr<LoadedModel> guide;  ///< a worse model that sampling is guided away from; load_model leaves it empty
};

/// Loads weights from a run folder, a step folder, a .safetensors file, an official .pth or an official checkpoint folder (nnet.pth, nnet_ema.pth):
/// wherever a CHECKPOINT is asked for.
/// @param ema     EMA weights (the first profile) of a checkpoint; false: the raw ones
/// @param config  needed for a bare weight file, which does not say its heads or its diffusion; for a run it must be empty
/// Throws Error naming the file, and for a shape that does not fit the parameter and both shapes.
LoadedModel load_model(const std::filesystem::path& path, bool ema = true, const std::optional<Config>& config = std::nullopt);

}  // namespace uvit
