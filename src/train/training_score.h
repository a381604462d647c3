#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "distributed/process_group.h"
#include "metrics/reference.h"
#include "metrics/score.h"
#include "model/uvit.h"

namespace uvit {

struct TakenScore {
  std::int64_t step = 0;
  double value = 0;
};

/// The Frechet distance of eval.metric, of eval.n images that the network draws as [sample] says: seeds from sample.seed on, classes in turn.
class TrainingScore {
 public:
  /// Loads the feature network and the reference, which rank 0 alone needs. Throws Error as load_reference does, and for a text model.
  TrainingScore(const Config& config, ProcessGroup& processes);
  /// Called by every process, which draw together. @param model with the weights that are called `weights`; equal weights give an equal score
  /// @return the score in rank 0, none in the others. Throws Interrupted (interrupt.h), in all of them, after a signal in any.
  std::optional<Score> operator()(UViT& model, std::int64_t step, const std::string& weights);
  /// The scores that training left in `scores` (a scores.jsonl) with this metric, number of images and reference: others cannot be compared with them.
  std::vector<TakenScore> taken_before(const std::filesystem::path& scores) const;

 private:
  Config config_;
  ProcessGroup& processes_;
  std::unique_ptr<FeatureNetwork> network_;  // null but in rank 0
  Reference reference_;
};

/// Rewrites a scores.jsonl without the scores that training took after `step`, which it will take again, and without lines that are no JSON.
void drop_training_scores_beyond(const std::filesystem::path& scores, std::int64_t step);

}  // namespace uvit
