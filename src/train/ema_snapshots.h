#pragma once
#include <filesystem>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace uvit {

/// One power-function average that a run kept: RUN/ema/step-N/ema_power_<length>.safetensors.
struct EmaSnapshot {
  std::int64_t step = 0;
  double length = 0;
  std::filesystem::path file;
};

/// Keeps the power-function averages of a step folder in RUN/ema, where prune_checkpoints leaves them: hard links, or copies where the file system
/// has none.
void keep_snapshots(const std::filesystem::path& run, const std::filesystem::path& step_folder, const TrainConfig& train);

/// Removes those of later steps: of a way that training has gone back from.
void remove_snapshots_beyond(const std::filesystem::path& run, std::int64_t step);

/// The snapshots of a run, by step and length.
std::vector<EmaSnapshot> find_snapshots(const std::filesystem::path& run);

/// An average of relative length `length` over the training up to `step`, made of snapshots.
struct Reconstruction {
  std::int64_t step = 0;
  double length = 0;
  std::vector<double> weights;  ///< of the snapshots; those after `step` have 0
  double residual = 0;  ///< L2 norm of what is left of the wanted density, relative to it; large where `step` is not that of a snapshot
};

/// The combination of the snapshots' densities p_k(i) = (gamma_k + 1) i^gamma_k / t_k^(gamma_k + 1), i <= t_k, that is nearest to the wanted one in
/// L2, as in Karras et al., arXiv:2312.02696, section 3.2 and appendix C: A w = b with inner products
/// <p_j, p_k> = (gamma_j + 1)(gamma_k + 1) / (gamma_j + gamma_k + 1) t_j^gamma_k / t_k^(gamma_k + 1), t_j <= t_k.
/// Throws Error without snapshots up to `step`, or for a length out of range.
Reconstruction plan_reconstruction(const std::vector<EmaSnapshot>& snapshots, std::int64_t step, double length);

/// The weighted sum of the snapshots' weights, in double; float32 tensors. Throws Error naming the file where snapshots do not fit one another.
NamedTensors reconstruct(const std::vector<EmaSnapshot>& snapshots, const Reconstruction& plan);

}  // namespace uvit
