#include <torch/torch.h>

#include "metrics/error_bars.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "core/progress.h"
#include "metrics/inception_score.h"

namespace uvit {
namespace {

constexpr std::int64_t kSizes = 15;

std::int64_t draw(std::mt19937_64& random, std::int64_t n) { return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n)); }

at::Tensor with_replacement(std::mt19937_64& random, std::int64_t n) {
  std::vector<std::int64_t> index;
  for (std::int64_t i = 0; i < n; ++i) index.push_back(draw(random, n));
  return torch::tensor(index);
}

// All of 0 .. n-1 in random order (Fisher and Yates).
at::Tensor permutation(std::mt19937_64& random, std::int64_t n) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) order[static_cast<std::size_t>(i)] = i;
  for (std::int64_t i = n - 1; i > 0; --i) std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(draw(random, i + 1))]);
  return torch::tensor(order);
}

// Linear interpolation between order statistics, as numpy's.
double quantile(const std::vector<double>& sorted, double p) {
  const double place = p * static_cast<double>(sorted.size() - 1);
  const std::size_t low = static_cast<std::size_t>(place), high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (place - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

void need_rows(const FeatureSet& set, OutputKind kind, const char* what, const char* side) {
  if (!set.rows.contains(kind))
    throw Error(fmt::format("{} needs the features of each {} image, which statistics do not hold: give images", what, side));
}

}  // namespace

Wanted wanted_generated(const std::vector<std::string>& metrics, const ErrorBarOptions& bars) {
  Wanted wanted = wanted_for(metrics);
  for (const std::string& name : metrics) {
    const MetricRow& row = find_metric(name);
    if ((bars.resamples > 0 && row.cheap) || (bars.infinity && name == "fid")) wanted.rows.insert(row.output);
  }
  return wanted;
}

Wanted wanted_reference(const std::vector<std::string>& metrics, const ErrorBarOptions& bars) {
  Wanted wanted;
  for (const std::string& name : metrics) {
    const MetricRow& row = find_metric(name);
    if (!row.needs_reference) continue;
    (row.keeps_rows ? wanted.rows : wanted.moments).insert(row.output);
    if (bars.floor) wanted.rows.insert(row.output);
  }
  return wanted;
}

std::vector<Interval> bootstrap_intervals(const MetricRow& row, const FeatureSet& generated, const FeatureSet& reference, const MetricOptions& options,
                                          const std::vector<MetricValue>& values, std::int64_t resamples, std::uint64_t seed) {
  need_rows(generated, row.output, "an interval", "generated");
  if (resamples < 2) throw Error("a bootstrap needs at least 2 resamples");
  FeatureSet alone;  // the other kinds of features need no resampling
  alone.labels = generated.labels;
  alone.rows[row.output] = generated.rows.at(row.output);
  if (generated.moments.contains(row.output)) alone.moments[row.output] = generated.moments.at(row.output);
  std::mt19937_64 random(seed);
  std::vector<std::vector<double>> samples(values.size());
  Progress progress("bootstrap of " + row.name, resamples, "resamples");
  for (std::int64_t i = 0; i < resamples; ++i) {
    const std::vector<MetricValue> again = row.compute(select_images(alone, with_replacement(random, generated.num_images)), reference, options);
    for (std::size_t k = 0; k < values.size(); ++k) samples[k].push_back(again.at(k).value);
    progress.update(i + 1);
  }
  std::vector<Interval> intervals;
  for (std::size_t k = 0; k < values.size(); ++k) {
    const double shift = values[k].value - mean_and_deviation(samples[k]).mean;
    std::sort(samples[k].begin(), samples[k].end());
    intervals.push_back({quantile(samples[k], 0.025) + shift, quantile(samples[k], 0.975) + shift});
  }
  return intervals;
}

std::pair<FeatureSet, FeatureSet> split_reference(const FeatureSet& reference, std::int64_t n, std::uint64_t seed) {
  if (reference.rows.empty()) throw Error("the floor of real images needs the reference's images, not its statistics alone");
  if (reference.num_images < 4) throw Error(fmt::format("the floor of real images needs at least 4 reference images, not {}", reference.num_images));
  std::mt19937_64 random(seed);
  const at::Tensor order = permutation(random, reference.num_images);
  const std::int64_t part = std::clamp<std::int64_t>(n, 2, reference.num_images / 2);
  return {select_images(reference, order.narrow(0, 0, part)), select_images(reference, order.narrow(0, part, reference.num_images - part))};
}

Extrapolation fid_infinity(const FeatureSet& generated, const FeatureSet& reference, std::uint64_t seed) {
  need_rows(generated, OutputKind::features, "FID-infinity", "generated");
  const std::int64_t count = generated.num_images;
  if (count < 50) throw Error(fmt::format("FID-infinity needs at least 50 images, not {}", count));
  const at::Tensor& rows = generated.rows.at(OutputKind::features);
  std::mt19937_64 random(seed);
  Progress progress("FID-infinity", kSizes, "sizes");
  double x_mean = 0, y_mean = 0;
  std::vector<double> x, y;
  for (std::int64_t i = 0; i < kSizes; ++i) {
    const std::int64_t n = count / 10 + (count - count / 10) * i / (kSizes - 1);
    const at::Tensor part = rows.index_select(0, permutation(random, count).narrow(0, 0, n));
    x.push_back(1 / static_cast<double>(n));
    y.push_back(frechet_distance(feature_statistics(part), reference.moments.at(OutputKind::features)));
    x_mean += x.back() / kSizes;
    y_mean += y.back() / kSizes;
    progress.update(i + 1);
  }
  double xx = 0, xy = 0, rest = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - x_mean) * (x[i] - x_mean);
    xy += (x[i] - x_mean) * (y[i] - y_mean);
  }
  const double slope = xy / xx, value = y_mean - slope * x_mean;
  for (std::size_t i = 0; i < x.size(); ++i) rest += std::pow(y[i] - value - slope * x[i], 2);
  const double error = std::sqrt(rest / (kSizes - 2) * (1.0 / kSizes + x_mean * x_mean / xx)), half = student_quantile(0.975, kSizes - 2) * error;
  return {value, {value - half, value + half}};
}

std::vector<Score> compute_with_error_bars(const std::vector<std::string>& metrics, const FeatureNetwork& network, const std::string& output,
                                           const FeatureSet& generated, const FeatureSet& reference, const Recipe& recipe, const ErrorBarOptions& bars,
                                           const MetricOptions& options) {
  std::vector<Score> scores;
  for (const std::string& name : metrics) {
    const MetricRow& row = find_metric(name);
    std::vector<Score> own = compute_metrics({name}, network, output, generated, reference, recipe, options);
    if (bars.resamples > 0 && row.cheap) {
      std::vector<MetricValue> values;
      for (const Score& score : own) values.push_back({"", score.value, {}});
      const std::vector<Interval> intervals = bootstrap_intervals(row, generated, reference, options, values, bars.resamples, bars.seed);
      for (std::size_t i = 0; i < own.size(); ++i) {
        own[i].interval = intervals[i];
        own[i].recipe["interval"] = fmt::format("95 %, bootstrap over the images of A, {} resamples", bars.resamples);
      }
    }
    scores.insert(scores.end(), own.begin(), own.end());
    if (bars.infinity && name == "fid") {
      const Extrapolation found = fid_infinity(generated, reference, bars.seed);
      Score score = own.front();
      score.metric.insert(score.metric.find('@'), " infinity");
      score.value = found.value;
      score.interval = found.interval;
      score.recipe["interval"] = "95 %, of the fit";
      scores.push_back(std::move(score));
    }
    if (!bars.floor || !row.needs_reference) continue;
    const auto [part, rest] = split_reference(reference, generated.num_images, bars.seed);
    for (Score& score : compute_metrics({name}, network, output, part, rest, recipe, options)) {
      score.metric.insert(score.metric.find('@'), " floor");
      score.recipe["num_images"] = std::to_string(part.num_images);
      score.recipe["floor"] = fmt::format("{} reference images against the other {}", part.num_images, rest.num_images);
      scores.push_back(std::move(score));
    }
  }
  return scores;
}

double student_quantile(double p, std::int64_t degrees) {
  const auto cdf = [degrees](double t) {  // A(t | v) is the probability of [-t, t]
    const double theta = std::atan(t / std::sqrt(static_cast<double>(degrees))), cosine = std::cos(theta);
    double term = degrees % 2 ? cosine : 1, sum = degrees == 1 ? 0 : term;
    for (std::int64_t k = degrees % 2 ? 3 : 2; k <= degrees - 2; k += 2) {
      term *= cosine * cosine * static_cast<double>(k - 1) / static_cast<double>(k);
      sum += term;
    }
    const double inside = degrees % 2 ? 2 / std::numbers::pi * (theta + std::sin(theta) * sum) : std::sin(theta) * sum;
    return 0.5 + inside / 2;
  };
  double low = 0, high = 1;
  while (cdf(high) < p) high *= 2;
  for (int i = 0; i < 200; ++i) {
    const double middle = (low + high) / 2;
    (cdf(middle) < p ? low : high) = middle;
  }
  return (low + high) / 2;
}

}  // namespace uvit
