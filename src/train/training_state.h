#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "config/config.h"
#include "distributed/process_group.h"
#include "model/uvit.h"
#include "train/fused_update.h"
#include "train/ema.h"
#include "train/loss_scale.h"
#include "train/optimizer.h"

namespace uvit {

/// All that a training step changes and a checkpoint keeps: weights, moments, averages, the loss scale, and the place in the data. The same in every
/// process, but with train.shard_optimizer each keeps the moments of its share of the parameters alone, updates those and sends them to the others (ZeRO
/// stage 1, Rajbhandari et al., arXiv:1910.02054).
class TrainingState {
 public:
  /// Initial weights drawn from config.train.seed. Warns of an average that config.train.steps steps leave full of them.
  TrainingState(const Config& config, at::Device device, ProcessGroup& processes);
  TrainingState(const TrainingState&) = delete;
  TrainingState& operator=(const TrainingState&) = delete;

  struct Update {
    at::Tensor grad_norm;  ///< 0-dim float64, on the device: reading it waits for a GPU
    double ratio = 0;      ///< |change of the parameters| / |parameters|, where it was asked for
  };
  /// Unscales and clips the parameters' gradients and takes one step with them: weights, moments, averages; counts it and its loss. With a loss or
  /// gradients that are not finite nothing changes but the loss scale, which such gradients may be the fault of, and the counts below.
  /// @param look  read loss and norm now; false: only a GPU knows whether the step was taken
  Update apply_gradients(double lr, const at::Tensor& loss, bool look, bool measure_ratio);

  /// Mean of the finite losses since the last reset_loss(); none where there were none. Its sum and count go into a checkpoint.
  std::optional<double> mean_loss() const;
  void reset_loss();
  std::int64_t skipped_steps() const;  ///< left out so far
  std::int64_t bad_steps() const;      ///< left out one after the other up to now; an overflow that a smaller loss scale mends is none

  /// Called by every process; rank 0 writes. @return the step folder, to which checkpoints/latest points now. Snapshots of power-function averages are
  /// kept beside.
  /// @param state  what is not said here: evaluation, class names, threads, what is unfinished
  std::filesystem::path save(const std::filesystem::path& run, CheckpointState state) const;
  /// Weights, and averages that begin at them, from a checkpoint of the same network, of images of any size (load_initial_weights).
  void start_from(const std::filesystem::path& checkpoint);
  /// Continues from a checkpoint of a run with the same configuration (check_resumable). Called by every process, with what rank 0 has read.
  /// @param origin  its folder, for errors
  void restore(CheckpointState& state, CheckpointTensors& tensors, const std::filesystem::path& origin);
  /// Goes back to a checkpoint, but not in the data nor in the count of skipped steps: the same images do not come again.
  void roll_back(CheckpointState& state, CheckpointTensors& tensors, const std::filesystem::path& origin);

  /// The weights that sampling uses, and their name: the first average.
  const NamedTensors& sampled_weights() const { return emas_.front().parameters(); }
  std::string sampled_name() const;

  UViT& model() { return model_; }
  const UViT& model() const { return model_; }
  const NamedTensors& parameters() const { return parameters_; }
  double loss_scale() const { return loss_scale_.value(); }

  std::int64_t step = 0;         ///< optimizer steps done
  std::int64_t images_seen = 0;  ///< global sample index of the next image
  std::int64_t rollbacks = 0;    ///< times that roll_back was called

 private:
  bool is_sharded() const { return shares_.size() > 2; }
  void share_updates();
  void count(const at::Tensor& loss, const at::Tensor& grad_norm, bool look, bool overflow, bool bad);
  void distribute(CheckpointState& state, CheckpointTensors& tensors);

  const Config config_;
  ProcessGroup& processes_;
  UViT model_;
  NamedTensors parameters_;
  const std::vector<std::size_t> shares_;  // process r updates parameters [shares_[r], shares_[r + 1]); {0, all} where each updates all
  std::unique_ptr<Optimizer> optimizer_;   // of this process's share
  std::vector<Ema> emas_;
  LossScale loss_scale_;
  std::unique_ptr<FusedUpdate> fused_update_;
  at::Tensor loss_sum_, loss_count_, skipped_, bad_in_a_row_;  // 0-dim float64, on the device: counted there, so that nobody waits for it
};

}  // namespace uvit
