#include <torch/torch.h>

#include "metrics/metric.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "core/name_table.h"
#include "metrics/inception_score.h"
#include "metrics/kernel_distance.h"
#include "metrics/manifold.h"

namespace uvit {
namespace {

using Values = std::vector<MetricValue>;

const at::Tensor& rows_of(const FeatureSet& set) { return set.rows.at(OutputKind::features); }

double distance(OutputKind kind, const FeatureSet& generated, const FeatureSet& reference) {
  return frechet_distance(generated.moments.at(kind), reference.moments.at(kind));
}

Values fid(const FeatureSet& generated, const FeatureSet& reference, const MetricOptions&) {
  return {{"FID", distance(OutputKind::features, generated, reference), {}}};
}

Values sfid(const FeatureSet& generated, const FeatureSet& reference, const MetricOptions&) {
  return {{"sFID", distance(OutputKind::spatial, generated, reference), {}}};
}

Values class_fid(const FeatureSet& generated, const FeatureSet& reference, const MetricOptions&) {
  const std::int64_t classes = 1 + *std::max_element(reference.labels.begin(), reference.labels.end());
  const at::Tensor label_a = torch::tensor(generated.labels), label_b = torch::tensor(reference.labels);
  Values values = {{"class FID", 0, {}}};
  for (std::int64_t c = 0; c < classes; ++c) {
    const at::Tensor a = (label_a == c).nonzero().flatten(), b = (label_b == c).nonzero().flatten();
    if (a.size(0) < 2 || b.size(0) < 2)
      throw Error(fmt::format("class FID: class {} has {} generated and {} reference images; it needs at least 2 of each", c, a.size(0), b.size(0)));
    const auto statistics = [](const FeatureSet& set, const at::Tensor& index) { return feature_statistics(rows_of(set).index_select(0, index)); };
    values.push_back({fmt::format("class FID {}", c), frechet_distance(statistics(generated, a), statistics(reference, b)), {}});
    values.front().value += values.back().value / static_cast<double>(classes);
  }
  return values;
}

Values kid(const FeatureSet& generated, const FeatureSet& reference, const MetricOptions& options) {
  const at::Tensor &a = rows_of(generated), &b = rows_of(reference);
  const std::int64_t size = std::min({options.kid_subset_size, a.size(0), b.size(0)});
  const auto [mean, deviation] = mean_and_deviation(kid_subsets(a, b, options.kid_subsets, size, options.kid_seed));
  const Recipe recipe = {{"kid_subsets", fmt::format("{} of {} images, seed {}", options.kid_subsets, size, options.kid_seed)}};
  return {{"KID", mean, recipe}, {"KID std", deviation, recipe}, {"KID full", polynomial_mmd(a, b), {}}};
}

Values inception_scores(const FeatureSet& generated, const FeatureSet&, const MetricOptions& options) {
  const at::Tensor p = class_probabilities(generated.rows.at(OutputKind::logits));
  const auto [mean, deviation] = mean_and_deviation(inception_score(p, options.inception_score_splits));
  const Recipe recipe = {{"inception_score_splits", std::to_string(options.inception_score_splits)}};
  return {{"IS", mean, recipe}, {"IS std", deviation, recipe}};
}

Values prdc(const FeatureSet& generated, const FeatureSet& reference, const MetricOptions& options) {
  const ManifoldScores scores = manifold_scores(rows_of(reference), rows_of(generated), options.k_precision, options.k_density);
  const Recipe wide = {{"k", std::to_string(options.k_precision)}}, dense = {{"k", std::to_string(options.k_density)}};
  return {{"precision", scores.precision, wide},
          {"recall", scores.recall, wide},
          {"density", scores.density, dense},
          {"coverage", scores.coverage, dense}};
}

Values mmd(const FeatureSet& generated, const FeatureSet& reference, const MetricOptions& options) {
  const double value = gaussian_mmd(rows_of(generated), rows_of(reference), options.mmd_sigma, options.mmd_scale);
  return {{"MMD", value, {{"mmd_kernel", fmt::format("Gaussian, sigma {}, times {}", options.mmd_sigma, options.mmd_scale)}}}};
}

Values authpct(const FeatureSet& generated, const FeatureSet& reference, const MetricOptions&) {
  return {{"AuthPct", 100 * memorisation(rows_of(reference), rows_of(generated), 1).authentic, {}}};
}

void require(const MetricRow& row, const FeatureSet& set, const char* side) {
  const bool there = row.keeps_rows ? set.rows.contains(row.output) : set.moments.contains(row.output);
  if (!there) {
    throw Error(fmt::format("metric {} needs {} of the {} images, which statistics or this network do not hold: give images", row.name,
                            row.keeps_rows ? "the features of each" : "mean and covariance", side));
  }
  if (row.needs_labels && set.labels.empty())
    throw Error(fmt::format("metric {} needs the class of each image, and the {} images have none", row.name, side));
}

// A covariance of few images is singular, and the distance then measures how few they are.
void warn_of_few_images(const MetricRow& row, const FeatureSet& generated, const FeatureSet& reference) {
  for (const FeatureSet* side : {&generated, &reference}) {
    const auto found = side->moments.find(row.output);
    if (found == side->moments.end() || side->num_images == 0 || side->num_images > found->second.mu.size(0)) continue;
    spdlog::warn("{}: the {} {} images are no more than the {} feature dimensions, so the value is far above that of many images", row.name,
                 side->num_images, side == &generated ? "generated" : "reference", found->second.mu.size(0));
  }
}

}  // namespace

std::span<const MetricRow> metric_table() {
  constexpr OutputKind features = OutputKind::features;
  static const std::array rows = {
      MetricRow{"fid", "Frechet distance of the features' normal distributions, arXiv:1706.08500", features, false, true, false, true, fid},
      MetricRow{"sfid", "the same of features that keep their place in the image, arXiv:2103.03841", OutputKind::spatial, false, true, false, true, sfid},
      MetricRow{"class-fid", "the same class by class, and the mean over the classes", features, true, true, true, true, class_fid},
      MetricRow{"kid", "kernel distance, cubic kernel: mean and deviation over subsets, and of all images, arXiv:1801.01401", features, true, true, false, false,
                kid},
      MetricRow{"is", "Inception score: mean and deviation over splits, arXiv:1606.03498", OutputKind::logits, true, false, false, true, inception_scores},
      MetricRow{"prdc", "precision, recall (arXiv:1904.06991), density, coverage (arXiv:2002.09797)", features, true, true, false, false, prdc},
      MetricRow{"mmd", "kernel distance, Gaussian kernel on unit features: CMMD where the network is CLIP, arXiv:2401.09603", features, true, true, false, false, mmd},
      MetricRow{"authpct", "percentage of images that are no near copy of a training image, arXiv:2102.08921", features, true, true, false, false, authpct},
  };
  return rows;
}

const MetricRow& find_metric(const std::string& name) { return find_row(metric_table(), "metric", name); }

Wanted wanted_for(const std::vector<std::string>& metrics) {
  Wanted wanted;
  for (const std::string& name : metrics) {
    const MetricRow& row = find_metric(name);
    (row.keeps_rows ? wanted.rows : wanted.moments).insert(row.output);
  }
  return wanted;
}

std::string metric_title(const std::string& value, const std::string& network, const std::string& output) {
  if (network == "inception" && (output.empty() || output == "2048")) return value;
  const std::string of = output.empty() ? network : network + "." + output;
  return fmt::format("{}[{}]", value == "FID" ? "FD" : value, of);
}

std::vector<Score> compute_metrics(const std::vector<std::string>& metrics, const FeatureNetwork& network, const std::string& output,
                                   const FeatureSet& generated, const FeatureSet& reference, const Recipe& recipe, const MetricOptions& options) {
  std::vector<Score> scores;
  for (const std::string& name : metrics) {
    const MetricRow& row = find_metric(name);
    require(row, generated, "generated");
    if (row.needs_reference) require(row, reference, "reference");
    if (row.needs_reference && !row.keeps_rows) warn_of_few_images(row, generated, reference);
    for (MetricValue& value : row.compute(generated, reference, options)) {
      if (!std::isfinite(value.value)) throw Error(fmt::format("metric {} gives {} for these images", value.name, value.value));
      Score score;
      score.metric = fmt::format("{}@{}", metric_title(value.name, network.name(), row.output == OutputKind::features ? output : ""),
                                 generated.num_images > 0 ? std::to_string(generated.num_images) : "unknown");
      score.value = value.value;
      score.recipe = recipe;
      score.recipe.merge(value.recipe);
      scores.push_back(std::move(score));
    }
  }
  return scores;
}

}  // namespace uvit
