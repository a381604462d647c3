#pragma once
#include <filesystem>
#include <string>

#include "config/config.h"
#include "distributed/process_group.h"

namespace uvit {

struct TrainRequest {
  Config config;
  std::filesystem::path run;  ///< run folder
  bool resume = false;        ///< go on from RUN/checkpoints/latest; without it a run folder with checkpoints is refused
  ProcessGroup* processes = nullptr;  ///< the processes that train together, each of which calls train with the same request; null: this one alone
};

struct TrainResult {
  std::int64_t step = 0;
  double loss = 0;                 ///< of the last step
  double eval_loss = -1;
  double images_per_second = 0;    ///< training steps alone, without evaluation, grids and checkpoints
  std::filesystem::path checkpoint;
  bool interrupted = false;        ///< SIGINT or SIGTERM: saved and stopped before the last step
};

/// Trains to config.train.steps. Writes RUN/config.toml, metrics.jsonl, the event file, grids, checkpoints and, with eval.every_steps, scores.jsonl
/// (checkpoints/best_score points at the checkpoint of the lowest score). A step whose loss or
/// gradients are not finite is left out; after train.max_bad_steps of them in a row training goes back to the last good checkpoint, on with other images,
/// and after train.max_rollbacks returns throws Error that names the first tensor that was not finite. Bit-equal to an uninterrupted run when resumed,
/// wherever it was killed or stopped by a signal (CPU, equal thread count).
/// Several processes train as one: each takes an equal share of every global batch, gradients are summed over them, all take the same steps, and rank 0
/// alone writes and speaks. With --resume, an elastic launcher's first start, which finds no checkpoint, begins anew.
TrainResult train(const TrainRequest& request);

/// SIGINT and SIGTERM set a flag that training looks at after each step.
void install_signal_handlers();

}  // namespace uvit
