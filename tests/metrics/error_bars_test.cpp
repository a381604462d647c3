#include <torch/torch.h>

#include "metrics/error_bars.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "support/scratch.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

at::Tensor random(const std::vector<std::int64_t>& shape, std::uint64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randn(shape, generator, at::kDouble);
}

FeatureSet make_set(const at::Tensor& rows) {
  FeatureSet set;
  set.num_images = rows.size(0);
  set.rows[OutputKind::features] = rows;
  set.moments[OutputKind::features] = feature_statistics(rows);
  return set;
}

/// Only its name is asked for.
class NoNetwork : public FeatureNetwork {
 public:
  std::string name() const override { return "inception"; }
  std::int64_t channels() const override { return 3; }
  std::vector<FeatureOutput> outputs() const override { return {}; }
  at::Tensor prepare(const at::Tensor& images) const override { return images; }
  NamedFeatures run(const at::Tensor&, const std::vector<std::string>&) override { return {}; }
  std::string weights_hash() const override { return ""; }
  std::string preprocess() const override { return ""; }
};

const MetricRow& kFid = find_metric("fid");

Interval fid_interval(const FeatureSet& generated, const FeatureSet& reference, std::int64_t resamples, std::uint64_t seed = 1) {
  const MetricOptions options;
  return bootstrap_intervals(kFid, generated, reference, options, kFid.compute(generated, reference, options), resamples, seed).at(0);
}

double width(const Interval& interval) { return interval.high - interval.low; }

}  // namespace

TEST_CASE("quantiles of Student's t are those of the tables") {
  const std::vector<std::pair<std::int64_t, double>> table = {{1, 12.706204736}, {2, 4.3026527297}, {3, 3.1824463053}, {4, 2.7764451052},
                                                              {9, 2.2621571628}, {13, 2.1603686565}, {30, 2.0422724563}, {1000, 1.9623390808}};
  for (const auto& [degrees, value] : table) check_close(std::to_string(degrees), {student_quantile(0.975, degrees)}, {value}, 1e-8);
}

TEST_CASE("a bootstrap's interval holds the value, repeats with its seed, and is as wide as drawing new images shows") {
  const FeatureSet reference = make_set(random({4000, 4}, 1));
  const FeatureSet generated = make_set(random({500, 4}, 2) + 0.5);
  const double value = frechet_distance(generated.moments.at(OutputKind::features), reference.moments.at(OutputKind::features));
  const Interval found = fid_interval(generated, reference, 200);
  CHECK(found.low < value);
  CHECK(found.high > value);
  const Interval again = fid_interval(generated, reference, 200), other = fid_interval(generated, reference, 200, 2);
  CHECK(again.low == found.low);
  CHECK(again.high == found.high);
  CHECK(other.low != found.low);
  std::vector<double> fresh;  // what the bootstrap stands for: other images of the same law
  for (std::uint64_t i = 0; i < 200; ++i)
    fresh.push_back(frechet_distance(feature_statistics(random({500, 4}, 100 + i) + 0.5), reference.moments.at(OutputKind::features)));
  std::sort(fresh.begin(), fresh.end());
  const double truth = fresh[194] - fresh[5];
  CHECK(width(found) > 0.7 * truth);
  CHECK(width(found) < 1.4 * truth);
  CHECK(width(fid_interval(make_set(random({2000, 4}, 3) + 0.5), reference, 200)) < 0.7 * width(found));
}

TEST_CASE("FID-infinity takes away the bias of few images") {
  const FeatureSet reference = make_set(random({20000, 16}, 4));
  const at::Tensor scale = at::linspace(0.8, 1.2, 16, at::kDouble);
  const double truth = ((scale - 1).square().sum() + 16 * 0.01).item<double>();  // both are normal with diagonal covariances
  const FeatureSet generated = make_set(random({1500, 16}, 5) * scale + 0.1);
  const double biased = frechet_distance(generated.moments.at(OutputKind::features), reference.moments.at(OutputKind::features));
  const Extrapolation found = fid_infinity(generated, reference, 1);
  CHECK(biased - truth > 0.03);
  CHECK(std::abs(found.value - truth) < 0.5 * (biased - truth));
  CHECK(found.interval.low < found.value);
  CHECK(found.interval.high > found.value);
  CHECK_THAT(error_of([&] { fid_infinity(make_set(random({49, 16}, 6)), reference, 1); }), Catch::Contains("50 images"));
}

TEST_CASE("the floor is of real images against other real images") {
  const FeatureSet reference = make_set(at::arange(100, at::kDouble).unsqueeze(1).repeat({1, 2}) + random({100, 2}, 7) * 1e-3);
  const auto [part, rest] = split_reference(reference, 30, 1);
  CHECK(part.num_images == 30);
  CHECK(rest.num_images == 70);
  const at::Tensor all = at::cat({part.rows.at(OutputKind::features), rest.rows.at(OutputKind::features)}).select(1, 0).round();
  CHECK(std::get<0>(all.sort()).equal(at::arange(100, at::kDouble)));
  CHECK(split_reference(reference, 90, 1).first.num_images == 50);
  FeatureSet statistics;
  statistics.moments = reference.moments;
  CHECK_THAT(error_of([&] { split_reference(statistics, 30, 1); }), Catch::Contains("statistics alone"));
}

TEST_CASE("scores come with what was asked for, each named and with its recipe") {
  const ErrorBarOptions bars{20, true, true, 3};
  const FeatureSet reference = make_set(random({300, 3}, 8)), generated = make_set(random({100, 3}, 9));
  std::map<std::string, Score> scores;
  for (const Score& score : compute_with_error_bars({"fid", "kid"}, NoNetwork(), "", generated, reference, {{"num_images", "100"}}, bars))
    scores[score.metric] = score;
  REQUIRE(scores.size() == 9);
  CHECK(scores.at("FID@100").interval.has_value());
  CHECK_THAT(scores.at("FID@100").recipe.at("interval"), Catch::Contains("20 resamples"));
  CHECK(!scores.at("KID@100").interval);
  CHECK(scores.at("FID infinity@100").value < scores.at("FID@100").value);
  CHECK_THAT(scores.at("FID floor@100").recipe.at("floor"), Catch::Contains("100 reference images against the other 200"));
  CHECK(scores.contains("KID full floor@100"));
  CHECK(compute_with_error_bars({"fid"}, NoNetwork(), "", generated, reference, {}, {}).size() == 1);

  const Wanted plain = wanted_generated({"fid", "kid"}, {}), with_bars = wanted_generated({"fid", "is"}, bars);
  CHECK((plain.rows == std::set<OutputKind>{OutputKind::features}));
  CHECK(wanted_generated({"fid"}, {}).rows.empty());
  CHECK((with_bars.rows == std::set<OutputKind>{OutputKind::features, OutputKind::logits}));
  CHECK(wanted_reference({"fid", "is"}, {}).rows.empty());
  CHECK((wanted_reference({"fid"}, bars).rows == std::set<OutputKind>{OutputKind::features}));
  FeatureSet statistics;
  statistics.num_images = 100;
  statistics.moments = generated.moments;
  CHECK_THAT(error_of([&] { compute_with_error_bars({"fid"}, NoNetwork(), "", statistics, reference, {}, bars); }), Catch::Contains("generated image"));
}
