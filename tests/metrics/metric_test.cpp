#include <torch/torch.h>

#include "metrics/metric.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "io/safetensors.h"
#include "metrics/inception_score.h"
#include "metrics/kernel_distance.h"
#include "metrics/manifold.h"
#include "support/fixtures.h"
#include "support/scratch.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

at::Tensor random(const std::vector<std::int64_t>& shape, std::uint64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randn(shape, generator, at::kDouble);
}

/// Names every output, runs none.
class NamedNetwork : public FeatureNetwork {
 public:
  explicit NamedNetwork(std::string name) : name_(std::move(name)) {}
  std::string name() const override { return name_; }
  std::int64_t channels() const override { return 3; }
  std::vector<FeatureOutput> outputs() const override { return {}; }
  at::Tensor prepare(const at::Tensor& images) const override { return images; }
  NamedFeatures run(const at::Tensor&, const std::vector<std::string>&) override { return {}; }
  std::string weights_hash() const override { return "none"; }
  std::string preprocess() const override { return "none"; }

 private:
  std::string name_;
};

/// A set that holds everything any metric asks for.
FeatureSet make_set(const at::Tensor& rows, std::int64_t classes = 2) {
  FeatureSet set;
  set.num_images = rows.size(0);
  for (const OutputKind kind : {OutputKind::features, OutputKind::spatial, OutputKind::logits}) {
    set.rows[kind] = rows;
    if (rows.size(0) >= 2 && rows.isfinite().all().item<bool>()) set.moments[kind] = feature_statistics(rows);
  }
  for (std::int64_t i = 0; i < rows.size(0); ++i) set.labels.push_back(i % classes);
  return set;
}

std::vector<std::string> all_metrics() {
  std::vector<std::string> names;
  for (const MetricRow& row : metric_table()) names.push_back(row.name);
  return names;
}

std::map<std::string, double> values_of(const FeatureSet& generated, const FeatureSet& reference) {
  std::map<std::string, double> values;
  for (const Score& score : compute_metrics(all_metrics(), NamedNetwork("inception"), "", generated, reference, {})) values[score.metric] = score.value;
  return values;
}

}  // namespace

TEST_CASE("KID draws numpy's subsets and gives torch-fidelity's values") {
  const TensorFile features = read_safetensors(fixtures() / "fid_features.safetensors"), expected = read_safetensors(fixtures() / "fid_kid.safetensors");
  const nlohmann::json cases = fixture_json("fid.json")["kid"];
  REQUIRE(!cases.empty());
  for (const auto& [dims, values] : cases.items()) {
    const at::Tensor a = to_torch(features.at("features_A_" + dims)), b = to_torch(features.at("features_B_" + dims));
    const at::Tensor index_a = to_torch(expected.at("kid_idx_A_" + dims)), index_b = to_torch(expected.at("kid_idx_B_" + dims));
    NumpyChoice choice(2020);
    for (std::int64_t i = 0; i < index_a.size(0); ++i) {
      CHECK(choice(a.size(0), index_a.size(1)).equal(index_a[i]));
      CHECK(choice(b.size(0), index_b.size(1)).equal(index_b[i]));
    }
    const std::vector<double> subsets = kid_subsets(a, b, index_a.size(0), index_a.size(1), 2020);
    check_close("subsets " + dims, subsets, expected.at("kid_per_subset_" + dims).to_double(), 1e-12);
    const auto [mean, deviation] = mean_and_deviation(subsets);
    const nlohmann::json& official = values["torch_fidelity_f64"];
    check_close("mean " + dims, {mean, deviation}, {official["kernel_inception_distance_mean"], official["kernel_inception_distance_std"]}, 1e-12);
    check_close("full " + dims, {polynomial_mmd(a, b)}, {values["full_unbiased_f64"]}, 1e-12);
  }
  CHECK_THAT(error_of([] { kid_subsets(random({5, 2}, 1), random({9, 2}, 2), 3, 6, 1); }), Catch::Contains("6 images") && Catch::Contains("from 5"));
}

TEST_CASE("precision, recall, density, coverage are the fixture's exactly, ties too") {
  const TensorFile features = read_safetensors(fixtures() / "fid_features.safetensors"), toys = read_safetensors(fixtures() / "fid_prdc.safetensors");
  const nlohmann::json cases = fixture_json("fid.json")["prdc"];
  REQUIRE(!cases.empty());
  for (const auto& [name, expected] : cases.items()) {
    INFO(name);
    const bool toy = name.starts_with("toy");
    const at::Tensor real = to_torch(toy ? toys.at(name + "_real") : features.at("features_A_" + name));
    const at::Tensor fake = to_torch(toy ? toys.at(name + "_fake") : features.at("features_B_" + name));
    const ManifoldScores scores = manifold_scores(real, fake);
    check_close(name, {scores.precision, scores.recall, scores.density, scores.coverage},
                {expected["precision"], expected["recall"], expected["density"], expected["coverage"]}, 1e-14);
    if (toy) continue;
    check_close("radius " + name, uvit::test::values_of(nearest_rows(real, real, 3, true).squared.select(1, 2).sqrt()),
                toys.at("radius3_A_" + name).to_double(), 1e-12 * max_abs(to_torch(toys.at("radius3_A_" + name))));
  }
}

TEST_CASE("the Inception score is torch-fidelity's, certain classes included") {
  const TensorFile file = read_safetensors(fixtures() / "fid_inception_score.safetensors");
  const nlohmann::json cases = fixture_json("fid.json")["inception_score"];
  int checked = 0;
  for (const auto& [name, splits] : cases.items()) {
    for (const auto& [count, expected] : splits.items()) {
      if (!expected.is_object()) continue;
      const std::vector<double> scores = inception_score(to_torch(file.at("probs_" + name)), std::stoll(count));
      check_close(name + " mean", {mean_and_deviation(scores).mean}, {expected["mean"]}, 1e-10);
      if (expected.contains("per_split")) check_close(name, scores, expected["per_split"].get<std::vector<double>>(), 1e-10);
      if (expected.contains("std")) check_close(name + " std", {mean_and_deviation(scores).deviation}, {expected["std"]}, 1e-10);
      ++checked;
    }
  }
  CHECK(checked >= 5);
  CHECK_THAT(error_of([] { inception_score(at::full({3, 2}, 0.5), 4); }), Catch::Contains("4 splits"));
  CHECK_THAT(error_of([] { inception_score(at::full({3, 2}, 0.7), 1); }), Catch::Contains("probabilities"));
  CHECK_THAT(error_of([] { inception_score(at::full({3, 2}, std::nan("")), 1); }), Catch::Contains("probabilities"));
}

TEST_CASE("blocks change nothing: kernels and neighbours of more rows than a block are those of the formulas") {
  const at::Tensor x = random({2300, 3}, 1), y = random({1500, 3}, 2) + 0.3;
  const auto mean_kernel = [](const at::Tensor& a, const at::Tensor& b) {
    const at::Tensor u = a / a.norm(2, 1, true), v = b / b.norm(2, 1, true);
    return (-(u.unsqueeze(1) - v.unsqueeze(0)).square().sum(2) / 200).exp().mean().item<double>();
  };
  check_close("MMD", {gaussian_mmd(x, y)}, {1000 * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))}, 1e-9);
  const auto cubic = [](const at::Tensor& a, const at::Tensor& b) { return (at::mm(a, b.t()) / 3 + 1).pow(3); };
  const auto off_diagonal = [](const at::Tensor& k) { return ((k.sum() - k.trace()) / static_cast<double>(k.size(0) * (k.size(0) - 1))).item<double>(); };
  check_close("KID", {polynomial_mmd(x, y)}, {off_diagonal(cubic(x, x)) + off_diagonal(cubic(y, y)) - 2 * cubic(x, y).mean().item<double>()}, 1e-9);

  const at::Tensor squared = (y.unsqueeze(1) - x.unsqueeze(0)).square().sum(2);
  const auto [values, index] = squared.topk(4, 1, false);
  const Neighbours found = nearest_rows(y, x, 4, false);
  check_tensor("neighbours", found.squared, values, 1e-13);
  CHECK(found.index.equal(index));

  at::Tensor own = (x.unsqueeze(1) - x.unsqueeze(0)).square().sum(2).fill_diagonal_(HUGE_VAL);
  const at::Tensor radius = std::get<0>(own.min(1));
  const auto nearest = squared.min(1);
  const double authentic = (std::get<0>(nearest) > radius.index_select(0, std::get<1>(nearest))).to(at::kDouble).mean().item<double>();
  CHECK(memorisation(x, y).authentic == authentic);
  CHECK(authentic > 0.2);
  CHECK(authentic < 0.9);
}

TEST_CASE("copies of training images are found, and pictured beside them") {
  const at::Tensor real = random({60, 8}, 3);
  at::Tensor fake = random({20, 8}, 4) * 2;
  fake[11] = real[42];
  const Memorisation found = memorisation(real, fake, 2);
  CHECK(found.order[0].item<std::int64_t>() == 11);
  CHECK(found.ratio[11].item<double>() == 0);
  CHECK(found.neighbours.index[11][0].item<std::int64_t>() == 42);
  CHECK(found.authentic <= 0.95);
  std::vector<Image> real_images, fake_images;
  for (std::uint8_t i = 0; i < 60; ++i) real_images.push_back({3, 4, 6, std::vector<std::uint8_t>(72, i)});
  for (std::uint8_t i = 0; i < 20; ++i) fake_images.push_back({1, 8, 12, std::vector<std::uint8_t>(96, static_cast<std::uint8_t>(200 + i))});
  const Image picture = memorisation_picture(found, memory_source(real_images), memory_source(fake_images), 3);
  CHECK(picture.channels == 1);
  CHECK(picture.height == 3 * 8 + 2 * 2);
  CHECK(picture.width == 3 * 12 + 2 * 2);
  CHECK(picture.pixels[0] == 211);
  CHECK(picture.pixels[14] == 42);  // the second cell of the first row: beside 12 pixels and 2 of padding
}

TEST_CASE("every metric of the table: equal sets, near and far ones, in the direction that it says") {
  const at::Tensor x = random({90, 6}, 5), noise = random({90, 6}, 6), other = random({90, 6}, 7);
  const FeatureSet reference = make_set(x), near = make_set(other), far = make_set(3 * other + 2);
  const auto low = values_of(near, reference), high = values_of(far, reference);
  REQUIRE(low.size() >= 12);
  for (const std::string metric : {"FID@90", "sFID@90", "class FID@90", "KID@90", "KID full@90", "MMD@90"}) {
    INFO(metric);
    CHECK(low.at(metric) < high.at(metric));
  }
  for (const std::string metric : {"precision@90", "density@90", "coverage@90"}) CHECK(low.at(metric) > high.at(metric));
  const auto same = values_of(reference, reference);
  for (const std::string metric : {"FID@90", "sFID@90", "class FID@90", "MMD@90"}) check_close(metric, {same.at(metric)}, {0}, 1e-9);
  for (const std::string metric : {"precision@90", "recall@90", "coverage@90"}) CHECK(same.at(metric) == 1);
  CHECK(same.at("AuthPct@90") == 0);
  CHECK(high.at("AuthPct@90") > low.at("AuthPct@90"));
}

TEST_CASE("no metric gives NaN: duplicates, constants, huge values, fewer images than dimensions") {
  at::Tensor copies = random({40, 5}, 8);
  copies.narrow(0, 10, 30).copy_(copies.narrow(0, 0, 10).repeat({3, 1}));
  const std::vector<std::pair<std::string, at::Tensor>> sets = {{"duplicates", copies},
                                                                {"all equal", at::full({40, 5}, 0.1, at::kDouble)},
                                                                {"one constant feature", at::cat({copies.narrow(1, 0, 4), at::zeros({40, 1}, at::kDouble)}, 1)},
                                                                {"huge", copies * 1e15},
                                                                {"tiny", copies * 1e-15},
                                                                {"wide", random({40, 200}, 9)}};
  for (const auto& [name, rows] : sets) {
    INFO(name);
    const FeatureSet a = make_set(rows), b = make_set(rows.flip(0) + rows.abs().max() * 0.01);
    for (const auto& [metric, value] : values_of(a, b)) {
      INFO(metric);
      CHECK(std::isfinite(value));
    }
  }
  const ManifoldScores equal = manifold_scores(at::full({40, 5}, 0.1), at::full({30, 5}, 0.1));
  CHECK(equal.precision == 1);
  CHECK(equal.recall == 1);
  CHECK(equal.density == 0);  // nothing is nearer than a radius of 0
}

TEST_CASE("every metric refuses, in one line, what it cannot be computed from") {
  const FeatureSet good = make_set(random({50, 4}, 10));
  at::Tensor bad_rows = random({50, 4}, 11);
  bad_rows[3][2] = std::numeric_limits<double>::quiet_NaN();
  const FeatureSet bad = make_set(bad_rows), few = make_set(random({2, 4}, 12)), narrow = make_set(random({50, 3}, 13)), empty;
  const NamedNetwork network("other");
  for (const MetricRow& row : metric_table()) {
    INFO(row.name);
    const auto message = [&](const FeatureSet& a, const FeatureSet& b) { return error_of([&] { compute_metrics({row.name}, network, "", a, b, {}); }); };
    CHECK_THAT(message(empty, good), Catch::Contains(row.name) && Catch::Contains("generated"));
    if (row.keeps_rows) CHECK_THAT(message(bad, good), Catch::Contains("finite"));
    if (row.needs_reference) {
      CHECK_THAT(message(good, empty), Catch::Contains("reference"));
      CHECK(!message(good, narrow).empty());
    }
    if (row.name == "prdc" || row.name == "is" || row.name == "class-fid") CHECK(!message(few, good).empty());
  }
  FeatureSet unlabelled = good;
  unlabelled.labels.clear();
  CHECK_THAT(error_of([&] { compute_metrics({"class-fid"}, network, "", unlabelled, good, {}); }), Catch::Contains("class of each image"));
  CHECK_THAT(error_of([] { find_metric("kdi"); }), Catch::Contains("did you mean 'kid'"));
}

TEST_CASE("titles name what a score is of, and recipes tell what differs") {
  CHECK(metric_title("FID", "inception", "") == "FID");
  CHECK(metric_title("FID", "inception", "768") == "FD[inception.768]");
  CHECK(metric_title("KID", "script:clip.pt", "") == "KID[script:clip.pt]");
  const FeatureSet set = make_set(random({30, 3}, 14));
  const std::vector<Score> scores = compute_metrics({"fid", "kid"}, NamedNetwork("x"), "", set, set, {{"solver", "ddim"}});
  REQUIRE(scores.size() == 4);
  CHECK(scores[0].metric == "FD[x]@30");
  CHECK(scores[0].recipe.at("solver") == "ddim");
  CHECK(scores[1].recipe.at("kid_subsets") == "100 of 30 images, seed 2020");
  CHECK(recipe_differences(scores[0].recipe, scores[0].recipe).empty());
  CHECK(recipe_differences({{"a", "1"}, {"b", "2"}}, {{"a", "3"}, {"c", "4"}}) ==
        std::vector<std::string>{"a: 1 against 3", "b: 2 against (not given)", "c: (not given) against 4"});
  const Wanted wanted = wanted_for({"fid", "prdc", "is"});
  CHECK((wanted.moments == std::set<OutputKind>{OutputKind::features}));
  CHECK((wanted.rows == std::set<OutputKind>{OutputKind::features, OutputKind::logits}));
}

TEST_CASE("a subset of a set has its rows, labels and moments") {
  const FeatureSet set = make_set(random({12, 3}, 15), 3);
  const at::Tensor index = torch::tensor(std::vector<std::int64_t>{4, 4, 11, 0});
  const FeatureSet part = select_images(set, index);
  CHECK(part.num_images == 4);
  CHECK(part.labels == std::vector<std::int64_t>{1, 1, 2, 0});
  CHECK(part.rows.at(OutputKind::features).equal(set.rows.at(OutputKind::features).index_select(0, index)));
  check_tensor("mu", part.moments.at(OutputKind::features).mu, part.rows.at(OutputKind::features).mean(0), 1e-15);
}
