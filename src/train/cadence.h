#pragma once
#include <cstdint>

#include "config/config.h"

namespace uvit {

/// What is to be done after which optimizer step (1, 2, ...): a function of the configuration alone, so that a resumed run does the same.
class Cadence {
 public:
  explicit Cadence(const Config& config) : train_(config.train), score_every_(config.eval.every_steps) {}
  bool is_last(std::int64_t step) const { return step >= train_.steps; }
  bool score(std::int64_t step) const { return is_due(score_every_, step); }
  /// The last step, every score, and the cadence of its own.
  bool checkpoint(std::int64_t step) const { return is_last(step) || score(step) || is_due(train_.checkpoint_every, step); }
  /// The held-out loss: with every checkpoint, so that `best` can be any of them.
  bool evaluation(std::int64_t step) const { return train_.eval_every > 0 && (checkpoint(step) || is_due(train_.eval_every, step)); }
  bool log(std::int64_t step) const { return is_last(step) || is_due(train_.log_every, step); }
  /// A line of metrics.jsonl: of every step that is logged or evaluated.
  bool line(std::int64_t step) const { return log(step) || evaluation(step); }
  bool preview(std::int64_t step) const { return is_due(train_.sample_every, step); }
  bool histograms(std::int64_t step) const { return is_due(train_.histogram_every, step); }
  bool comparison(std::int64_t step) const { return is_due(train_.hash_every, step); }

 private:
  static bool is_due(std::int64_t every, std::int64_t step) { return every > 0 && step % every == 0; }
  TrainConfig train_;
  std::int64_t score_every_;
};

}  // namespace uvit
