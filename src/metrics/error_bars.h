#pragma once
#include <cstdint>
#include <random>
#include <vector>

#include "metrics/metric.h"

namespace uvit {

/// What is computed beside a score, so that it can be compared with another.
struct ErrorBarOptions {
  std::int64_t resamples = 0;  ///< of the bootstrap; 0: no interval
  bool floor = false;          ///< the metric of real images against real images
  bool infinity = false;       ///< FID-infinity
  std::uint64_t seed = 0;      ///< of every draw here
};

/// What the generated side must keep for these metrics and error bars, and what the reference must.
Wanted wanted_generated(const std::vector<std::string>& metrics, const ErrorBarOptions& bars);
Wanted wanted_reference(const std::vector<std::string>& metrics, const ErrorBarOptions& bars);

/// 95 % interval of each value that `row` gives for `generated`: images of it are drawn N at a time with replacement, the reference stays. A resample
/// holds duplicates, which shifts most metrics; the interval is that of the resamples' values moved so that their mean lies at the value.
/// @param generated with the rows that the metric is of @param values what the metric gave @param resamples >= 2
std::vector<Interval> bootstrap_intervals(const MetricRow& row, const FeatureSet& generated, const FeatureSet& reference, const MetricOptions& options,
                                          const std::vector<MetricValue>& values, std::int64_t resamples, std::uint64_t seed);

/// Two parts of the reference without a common image: n images drawn at random (half of them where there are fewer than 2n), and the rest.
/// What a metric gives for the first against the second is its floor: the best that n images can be expected to score.
/// @param reference with rows
std::pair<FeatureSet, FeatureSet> split_reference(const FeatureSet& reference, std::int64_t n, std::uint64_t seed);

/// FID of infinitely many images: 15 sizes n from N / 10 to N, FID of n images drawn without replacement, and where the straight line in 1 / n through
/// them (least squares) meets 1 / n = 0. It takes away the bias by which FID grows as images get fewer. Source: arXiv:1911.07023.
struct Extrapolation {
  double value = 0;
  Interval interval;  ///< 95 %, of the fit alone
};
/// @param generated with rows of features; throws Error for fewer than 50 images
Extrapolation fid_infinity(const FeatureSet& generated, const FeatureSet& reference, std::uint64_t seed);

/// compute_metrics, and after each metric's scores what `bars` asks for: intervals of the rows that are cheap to resample, "TITLE floor@N", and behind fid
/// "TITLE infinity@N". Throws Error as compute_metrics does.
std::vector<Score> compute_with_error_bars(const std::vector<std::string>& metrics, const FeatureNetwork& network, const std::string& output,
                                           const FeatureSet& generated, const FeatureSet& reference, const Recipe& recipe, const ErrorBarOptions& bars,
                                           const MetricOptions& options = {});

/// The p-quantile of Student's t distribution with `degrees` >= 1, p in (0.5, 1). Abramowitz and Stegun 26.7.3, 26.7.4, inverted by bisection.
double student_quantile(double p, std::int64_t degrees);

}  // namespace uvit
