#pragma once
#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "data/dataset.h"

namespace uvit {

/// Images as Dataset::read_values gives them (in [-1, 1], or latents), [B, C, H, W] contiguous. B is LoaderOptions::rows where that is given.
struct Batch {
  std::int64_t first_sample = 0;  ///< global sample index of images[0]: what training draws are keyed by
  std::vector<float> images;
  std::vector<std::int64_t> labels;   ///< [B]
  std::vector<float> contexts;        ///< [B, context_tokens, context_dim]; empty where the dataset has none
  std::vector<std::int64_t> indexes;  ///< [B] positions in the dataset
};

struct LoaderOptions {
  std::uint64_t seed = 0;
  std::int64_t batch_size = 128;
  std::int64_t first_sample = 0;  ///< where to start: the data position of a resumed run
  std::int64_t first_row = 0;     ///< of each batch only rows [first_row, first_row + rows) are made: the share of one of several processes;
  std::int64_t rows = 0;          ///< 0: all
  bool flip = false;
  std::int64_t workers = 1;
  std::int64_t prefetch = 4;
  bool skip_broken = false;  ///< a broken image is left out and counted; its place is taken by the next one in the order
};

/// An endless stream of batches in a deterministic order: global sample n is image permutation(seed, n / N)[n % N]. What a batch holds is a
/// function of (seed, n) alone, whatever the number of workers or where the stream started.
class DataLoader {
 public:
  DataLoader(const Dataset& dataset, const LoaderOptions& options);
  ~DataLoader();
  DataLoader(const DataLoader&) = delete;
  DataLoader& operator=(const DataLoader&) = delete;

  /// The next batch; blocks until it is there. Rethrows what a worker threw.
  Batch next();
  std::int64_t skipped() const { return static_cast<std::int64_t>(broken().size()); }
  std::set<std::int64_t> broken() const;  ///< indexes of the broken images left out of the batches handed out so far

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace uvit
