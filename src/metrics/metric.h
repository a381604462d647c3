#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "metrics/feature_set.h"
#include "metrics/score.h"

namespace uvit {

/// What a metric can be set to; the values used are in the score's recipe.
struct MetricOptions {
  std::int64_t kid_subsets = 100, kid_subset_size = 1000;  ///< a smaller set makes smaller subsets
  std::uint32_t kid_seed = 2020;
  std::int64_t inception_score_splits = 10;
  std::int64_t k_precision = 3, k_density = 5;
  double mmd_sigma = 10, mmd_scale = 1000;
};

/// One number that a metric gives.
struct MetricValue {
  std::string name;  ///< "FID", "KID", "precision", ...
  double value = 0;
  Recipe recipe;  ///< settings of this metric alone
};

/// A row of the table of metrics. A new one is a function and a row: the evaluator keeps what `output` and `keeps_rows` ask for.
struct MetricRow {
  std::string name;
  std::string description;
  OutputKind output;
  bool keeps_rows;       ///< every image's features are needed; else their moments are enough, and memory does not grow with the images
  bool needs_reference;  ///< else `reference` is ignored
  bool needs_labels;     ///< the class of every image, on both sides
  bool cheap;            ///< little work beside the network's, so that an interval can be had by computing it again for many resamples
  /// Throws Error for too few images or features that are not finite; never returns NaN.
  std::vector<MetricValue> (*compute)(const FeatureSet& generated, const FeatureSet& reference, const MetricOptions& options);
};

std::span<const MetricRow> metric_table();
/// Throws Error with the nearest name where there is no such row.
const MetricRow& find_metric(const std::string& name);
/// What a feature set must keep for these metrics.
Wanted wanted_for(const std::vector<std::string>& metrics);

/// "FID" is that of Inception's 2048 features; others name what they are: "FD[fmnist-cnn]", "KID[inception.768]".
/// @param output of the features; "": the network's first
std::string metric_title(const std::string& value, const std::string& network, const std::string& output);

/// Every metric named, as scores "TITLE@N" whose recipes are `recipe` and the metric's own settings.
/// Throws Error where a set lacks what a metric needs, and whatever computing it throws.
std::vector<Score> compute_metrics(const std::vector<std::string>& metrics, const FeatureNetwork& network, const std::string& output,
                                   const FeatureSet& generated, const FeatureSet& reference, const Recipe& recipe, const MetricOptions& options = {});

}  // namespace uvit
