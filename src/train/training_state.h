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
#include "train/device_update.h"
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
    bool bad = false;      ///< looked at, not finite, and not for the loss scale's fault: nothing was changed
  };
  /// Unscales and clips the parameters' gradients and takes one step with them: weights, moments, averages. Gradients that are not finite change nothing
  /// but the loss scale. @param look  read the norm now; false: only a GPU knows whether the step was taken
  Update apply_gradients(double lr, bool look);

  /// Mean of the losses added since the last reset_loss(); 0 where there are none. Its sum and count go into a checkpoint.
  double mean_loss() const;
  void add_loss(const at::Tensor& loss);
  void reset_loss();

  /// Called by every process; rank 0 writes. @return the step folder, to which checkpoints/latest points now. Snapshots of power-function averages are
  /// kept beside.
  std::filesystem::path save(const std::filesystem::path& run, const std::optional<double>& eval_loss, const std::vector<std::string>& class_names,
                             std::int64_t threads) const;
  /// Weights, and averages that begin at them, from a checkpoint of the same network, of images of any size (load_initial_weights).
  void start_from(const std::filesystem::path& checkpoint);
  /// Continues from a step folder of a run with the same configuration (check_resumable). Called by every process; rank 0 reads. @return its state, in rank 0
  CheckpointState load(const std::filesystem::path& step_folder);

  /// The weights that sampling uses, and their name: the first average.
  const NamedTensors& sampled_weights() const { return emas_.front().parameters(); }
  std::string sampled_name() const;

  UViT& model() { return model_; }
  const UViT& model() const { return model_; }
  const NamedTensors& parameters() const { return parameters_; }
  double loss_scale() const { return loss_scale_.value(); }

  std::int64_t step = 0;         ///< optimizer steps done
  std::int64_t images_seen = 0;  ///< global sample index of the next image

 private:
  bool is_sharded() const { return shares_.size() > 2; }
  void share_updates();
  void distribute(CheckpointState& state, CheckpointTensors& tensors);

  const Config config_;
  ProcessGroup& processes_;
  UViT model_;
  NamedTensors parameters_;
  const std::vector<std::size_t> shares_;  // process r updates parameters [shares_[r], shares_[r + 1]); {0, all} where each updates all
  std::unique_ptr<Optimizer> optimizer_;   // of this process's share
  std::vector<Ema> emas_;
  LossScale loss_scale_;
  std::unique_ptr<DeviceUpdate> device_update_;
  at::Tensor loss_sum_;  // 0-dim float64, on the device
  std::int64_t loss_count_ = 0;
};

}  // namespace uvit
