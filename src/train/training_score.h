#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "config/config.h"
#include "metrics/reference.h"
#include "metrics/score.h"
#include "model/uvit.h"

namespace uvit {

/// The Frechet distance of eval.metric, of eval.n images that the network draws as [sample] says: seeds from sample.seed on, classes in turn.
class TrainingScore {
 public:
  /// Loads the feature network and the reference. Throws Error as load_reference does, and for a text model.
  explicit TrainingScore(const Config& config);
  /// @param model with the weights that are called `weights`; equal weights give an equal score
  Score operator()(UViT& model, std::int64_t step, const std::string& weights);

 private:
  Config config_;
  std::unique_ptr<FeatureNetwork> network_;
  Reference reference_;
};

/// The lowest score that training left in `scores` (a scores.jsonl) up to `step`; negative where there is none.
double best_training_score(const std::filesystem::path& scores, std::int64_t step);

}  // namespace uvit
