#pragma once
#include <optional>
#include <string>
#include <vector>

#include "data/image_io.h"
#include "metrics/feature_network.h"
#include "metrics/recipe.h"

namespace uvit {

/// Where the value would lie with other images: its recipe's "interval" says how it was found.
struct Interval {
  double low = 0, high = 0;
};

/// A score never stands alone: its value with everything needed to get it again.
struct Score {
  std::string metric;  ///< "FD[fmnist-cnn]@2000"
  double value = 0;
  std::optional<Interval> interval;
  Recipe recipe;
};

/// "FD[fmnist-cnn]@2000 = 12.34 [12.1, 12.6]  (network fmnist-cnn, ...)": one line; hashes are cut to 12 digits.
std::string format_score(const Score& score);
/// Appends one JSON line {metric, value, interval, recipe} with whole hashes. @param path  a file, or the run folder, whose scores.jsonl is meant
void append_score(const std::string& path, const Score& score);

/// Share of images whose largest class score is that of the class asked for. Throws Error when the network is no classifier, there are no images, or
/// images and labels differ in number.
double class_agreement(FeatureNetwork& network, const std::vector<Image>& images, const std::vector<std::int64_t>& labels);

}  // namespace uvit
