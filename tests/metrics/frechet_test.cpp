#include <torch/torch.h>

#include "metrics/frechet.h"

#include <catch2/catch.hpp>

#include "io/npz.h"
#include "io/safetensors.h"
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

FeatureStatistics statistics_of(const at::Tensor& mu, const at::Tensor& sigma) {
  FeatureStatistics statistics;
  statistics.mu = mu;
  statistics.sigma = sigma;
  return statistics;
}

/// pytorch-fid's value and the value that is exact: README of the fixtures, section 6. Away from the exact one by no more than 1e-6 max(1, value) is
/// what is asked.
void check_distance(const std::string& what, double value, const nlohmann::json& expected) {
  for (const char* key : {"official_value", "official_pytorch_fid", "closed_form", "exact_nuclear_norm", "exact_nuclear_norm_f64"}) {
    if (!expected.contains(key)) continue;
    const double reference = expected[key];
    check_close(what + " " + key, {value}, {reference}, 1e-6 * std::max(1.0, reference));
  }
}

}  // namespace

TEST_CASE("the Frechet distance of small cases, singular ones too, is the official and the exact one") {
  const TensorFile file = read_safetensors(fixtures() / "fid_frechet_small.safetensors");
  const nlohmann::json cases = fixture_json("fid.json")["frechet_small"];
  REQUIRE(!cases.empty());
  for (const auto& [name, expected] : cases.items()) {
    const auto get = [&](const std::string& part) { return to_torch(file.at(name + "." + part)); };
    const FeatureStatistics a = statistics_of(get("mu1"), get("sigma1")), b = statistics_of(get("mu2"), get("sigma2"));
    check_distance(name, frechet_distance(a, b), expected);
    check_distance(name + " swapped", frechet_distance(b, a), expected);
    for (const std::string side : {"1", "2"}) {
      if (!file.find(name + ".samples" + side)) continue;
      const FeatureStatistics own = feature_statistics(get("samples" + side));
      check_tensor(name + " mu" + side, own.mu, get("mu" + side), 1e-10);
      check_tensor(name + " sigma" + side, own.sigma, get("sigma" + side), 1e-10);
    }
  }
}

TEST_CASE("statistics and distance of stored features are pytorch-fid's") {
  const TensorFile features = read_safetensors(fixtures() / "fid_features.safetensors"),
                   expected = read_safetensors(fixtures() / "fid_stats.safetensors");
  const nlohmann::json cases = fixture_json("fid.json")["fid"];
  REQUIRE(!cases.empty());
  for (const auto& [dims, values] : cases.items()) {
    std::vector<FeatureStatistics> sides;
    for (const std::string side : {"A", "B"}) {
      const std::string key = side + "_" + dims;
      sides.push_back(feature_statistics(to_torch(features.at("features_" + key))));
      const auto& [mu, sigma] = std::tie(sides.back().mu, sides.back().sigma);
      CHECK(sides.back().num_images == features.at("features_" + key).shape[0]);
      const auto reference = [&](const std::string& part) { return to_torch(expected.at(part + "_" + key)); };
      check_tensor("mu " + key, mu, reference("mu"), 1e-10);
      check_tensor("diagonal " + key, sigma.diag(), reference("sigma_diag"), 1e-10);
      check_tensor("block " + key, sigma.slice(0, 0, 32).slice(1, 0, 32), reference("sigma_block32"), 1e-10);
      check_tensor("trace and norm " + key, at::stack({sigma.trace(), sigma.norm()}), reference("sigma_trace_frob"), 1e-10);
    }
    check_distance(dims, frechet_distance(sides[0], sides[1]), values);
    if (values["self_A_A_official"].is_null()) continue;  // left out there for its time
    check_close(dims + " itself", {frechet_distance(sides[0], sides[0])}, {0.0}, 1e-10);
  }
}

TEST_CASE("distance to itself is 0, and a shift by d adds |d|^2") {
  for (const std::int64_t images : {3, 40, 500}) {
    const at::Tensor x = random({images, 24}, 7), shift = random({24}, 8);
    const FeatureStatistics a = feature_statistics(x), b = feature_statistics(x + shift);
    check_close("itself", {frechet_distance(a, a)}, {0.0}, 1e-11);
    check_close("shifted", {frechet_distance(a, b)}, {shift.square().sum().item<double>()}, 1e-11);
  }
}

TEST_CASE("scaling features by s adds (1 - s)^2 tr(sigma)") {
  const at::Tensor x = random({300, 10}, 3);
  const FeatureStatistics a = feature_statistics(x - x.mean(0)), b = feature_statistics(3 * (x - x.mean(0)));
  check_close("scaled", {frechet_distance(a, b)}, {4 * a.sigma.trace().item<double>()}, 1e-11);
}

TEST_CASE("moments that come in parts are those of all rows, far from 0 too, and keep no rows") {
  const at::Tensor x = random({3000, 17}, 21) + 1e4;
  const FeatureStatistics whole = feature_statistics(x);
  const at::Tensor centred = x - x.mean(0);
  check_tensor("sigma", whole.sigma, at::mm(centred.t(), centred) / 2999, 1e-9);
  for (const std::int64_t part : {1, 7, 16, 17, 18, 1000}) {
    Moments moments;
    for (std::int64_t i = 0; i < x.size(0); i += part) moments.add(x.slice(0, i, std::min(i + part, x.size(0))));
    const FeatureStatistics merged = moments.finish();
    CHECK(moments.count() == 3000);
    CHECK(!merged.root.defined());
    check_tensor("mu", merged.mu, whole.mu, 1e-10);
    check_tensor("sigma", merged.sigma, whole.sigma, 1e-9);
  }
  const FeatureStatistics few = feature_statistics(x.narrow(0, 0, 17));  // no more rows than dimensions: the root is kept
  check_tensor("root", at::mm(few.root.t(), few.root), few.sigma, 1e-12);
}

TEST_CASE("the fast distance of many images is the exact one, ill-conditioned covariances included") {
  for (const double decay : {0.0, -1.0, -2.5, -4.0}) {
    INFO(decay);
    const std::int64_t dims = 120;
    const at::Tensor scale = at::logspace(0, decay, dims, 10, at::TensorOptions(at::kDouble));
    const FeatureStatistics a = feature_statistics(random({300, dims}, 31) * scale), b = feature_statistics(random({400, dims}, 32) * scale * 1.1);
    const auto root = [](const at::Tensor& sigma) {
      const auto [values, vectors] = at::linalg_eigh(sigma);
      return at::mm(vectors * values.clamp_min(0).sqrt(), vectors.t());
    };
    const double cross = at::linalg_svdvals(at::mm(root(a.sigma), root(b.sigma))).sum().item<double>();
    const double exact = ((a.mu - b.mu).square().sum() + a.sigma.trace() + b.sigma.trace()).item<double>() - 2 * cross;
    check_close("distance", {frechet_distance(a, b)}, {exact}, 1e-7 * exact);
  }
}

TEST_CASE("statistics refuse what has no covariance") {
  CHECK_THAT(error_of([] { feature_statistics(random({1, 4}, 1)); }), Catch::Contains("at least 2"));
  CHECK_THAT(error_of([] {
               Moments moments;
               moments.add(random({3, 4}, 1));
               moments.add(random({3, 5}, 1));
             }),
             Catch::Contains("[N, 4]") && Catch::Contains("[3, 5]"));
  CHECK_THAT(error_of([] { feature_statistics(random({4}, 1)); }), Catch::Contains("[N, D]"));
  for (const double bad : {std::nan(""), HUGE_VAL}) {
    at::Tensor x = random({4, 3}, 1);
    x[2][1] = bad;
    CHECK_THAT(error_of([&] { feature_statistics(x); }), Catch::Contains("not finite"));
  }
  const FeatureStatistics three = feature_statistics(random({9, 3}, 1)), four = feature_statistics(random({9, 4}, 1));
  CHECK_THAT(error_of([&] { frechet_distance(three, four); }), Catch::Contains("3 and 4"));
  const FeatureStatistics negative = statistics_of(at::zeros({2}, at::kDouble), at::diag(at::tensor({1.0, -0.5}, at::kDouble)));
  CHECK_THAT(error_of([&] { frechet_distance(negative, negative); }), Catch::Contains("eigenvalue -0.5"));
}

TEST_CASE("pytorch-fid's .npz files read, and their distances are the official ones") {
  const nlohmann::json cases = fixture_json("fid.json")["fid"];
  int pairs = 0;
  for (const auto& entry : std::filesystem::directory_iterator(fixtures())) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("fid_stats_A_") || !name.ends_with(".npz")) continue;
    const std::string dims = std::to_string(std::stoi(name.substr(12)));
    const FeatureStatistics a = read_statistics(entry.path()), b = read_statistics(fixtures() / ("fid_stats_B_" + dims + ".npz"));
    CHECK(a.mu.size(0) == std::stoi(dims));
    CHECK(a.num_images == 0);
    check_distance(name, frechet_distance(a, b), cases[dims]);
    ++pairs;
  }
  CHECK(pairs >= 2);
}

TEST_CASE("statistics come back from a file as they were") {
  const ScratchFolder folder;
  FeatureStatistics written = feature_statistics(random({20, 6}, 4));
  written.network = "a network";
  written.weights_hash = "0123";
  written.preprocess = "as it is";
  written.dataset_hash = "4567";
  write_statistics(folder / "stats.npz", written);
  const FeatureStatistics read = read_statistics(folder / "stats.npz");
  CHECK(read.mu.equal(written.mu));
  CHECK(read.sigma.equal(written.sigma));
  CHECK(read.num_images == 20);
  CHECK(read.network == "a network");
  CHECK(read.weights_hash == "0123");
  CHECK(read.preprocess == "as it is");
  CHECK(read.dataset_hash == "4567");
  write_statistics(folder / "bare.npz", statistics_of(written.mu, written.sigma));
  CHECK(read_statistics(folder / "bare.npz").network.empty());
}

TEST_CASE("broken statistics are named with what is wrong") {
  const ScratchFolder folder;
  const std::filesystem::path path = folder / "stats.npz";
  const auto message_for = [&](const NamedTensors& tensors) {
    write_npz(path, to_tensor_file(tensors));
    return error_of([&] { read_statistics(path); });
  };
  const at::Tensor mu = random({3}, 1), sigma = at::eye(3, at::kDouble);
  CHECK_THAT(message_for({{"mu", mu}}), Catch::Contains("stats.npz") && Catch::Contains("'sigma'"));
  CHECK_THAT(message_for({{"sigma", sigma}}), Catch::Contains("stats.npz") && Catch::Contains("'mu'"));
  CHECK_THAT(message_for({{"mu", mu}, {"sigma", at::eye(4, at::kDouble)}}), Catch::Contains("stats.npz") && Catch::Contains("[4, 4]"));
  CHECK_THAT(message_for({{"mu", sigma}, {"sigma", sigma}}), Catch::Contains("mu [3, 3]"));
  CHECK_THAT(message_for({{"mu", mu / 0.0}, {"sigma", sigma}}), Catch::Contains("not finite"));
  CHECK_THAT(message_for({{"mu", mu}, {"sigma", random({3, 3}, 2)}}), Catch::Contains("not symmetric"));
  write_statistics(path, statistics_of(mu, sigma));
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  CHECK_THAT(error_of([&] { read_statistics(path); }), Catch::Contains("stats.npz"));
  CHECK_THAT(error_of([&] { read_statistics(folder / "absent.npz"); }), Catch::Contains("absent.npz"));
}
