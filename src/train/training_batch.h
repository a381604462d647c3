#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <set>
#include <vector>

#include "config/config.h"
#include "data/dataset.h"
#include "diffusion/schedule.h"

namespace uvit {

/// One global batch, or this process's share of it, with everything that is drawn for it.
struct TrainingBatch {
  at::Tensor x0;          ///< [B, C, H, W] float32 in [-1, 1], or latents
  at::Tensor eps;         ///< [B, C, H, W] float32, standard normal
  std::vector<double> t;  ///< [B] diffusion time
  at::Tensor labels;      ///< [B] int64 with dropped labels replaced by the null label K; undefined without classes
  at::Tensor context;     ///< [B, tokens, dim] float32 with dropped captions replaced by the empty text's; undefined without context tokens
};

/// An endless stream of training batches, made ahead of time in a thread of its own: the loader's images with t, noise and label dropout, each drawn
/// from (seed, purpose, global sample index), so that a batch is a function of its position alone.
class TrainingBatches {
 public:
  /// @param first_sample  global sample index of the first image: the data position of a resumed run
  /// @param rank,processes  only the rank-th of so many equal, contiguous shares of each global batch is made
  TrainingBatches(const Dataset& dataset, const Config& config, const Schedule& schedule, std::int64_t first_sample, int rank = 0, int processes = 1);
  ~TrainingBatches();
  TrainingBatches(const TrainingBatches&) = delete;
  TrainingBatches& operator=(const TrainingBatches&) = delete;

  /// The next batch; blocks until it is there. Rethrows what reading the data threw.
  TrainingBatch next();
  std::set<std::int64_t> broken() const;  ///< indexes of the broken images left out so far

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace uvit
