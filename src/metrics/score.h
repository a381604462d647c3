#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "config/config.h"
#include "data/dataset.h"
#include "metrics/feature_network.h"
#include "metrics/frechet.h"

namespace uvit {

/// A score never stands alone: its value with everything needed to get it again.
struct Score {
  std::string metric;                         ///< "FD[fmnist-cnn]@2000"
  double value = 0;
  std::map<std::string, std::string> recipe;  ///< num_images, reference and its hash, network and its hash, resize, solver, nfe, guidance_scale, weights, precision, seeds
};

/// "FD[fmnist-cnn]@2000 = 12.34  (reference ..., solver ..., ...)": one line.
std::string format_score(const Score& score);
/// Appends the score to RUN/scores.jsonl.
void append_score(const std::string& path, const Score& score);

/// Features of `count` images that `image(i)` gives as uint8, in batches. @return [count, D] float32
at::Tensor collect_features(FeatureNetwork& network, std::int64_t count, const std::function<Image(std::int64_t)>& image,
                            const std::function<void(std::int64_t)>& on_progress = {});

/// One side of a comparison: a folder of images, an .npz of statistics, or the name of a dataset ("fashion_mnist", "fashion_mnist:test").
struct Reference {
  FeatureStatistics statistics;
  std::string name;   ///< as given, with the split
  std::string hash;   ///< of the features' statistics
};
/// @param limit images used at most; 0: all
Reference load_reference(const std::string& spec, const FeatureNetworkRow& row, FeatureNetwork& network, std::int64_t limit, const DataConfig& data);

}  // namespace uvit
