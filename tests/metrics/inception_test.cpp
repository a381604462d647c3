#include <torch/torch.h>

#include "metrics/inception.h"

#include <catch2/catch.hpp>
#include <fstream>

#include "io/pth.h"
#include "io/safetensors.h"
#include "metrics/kernel_distance.h"
#include "metrics/manifold.h"
#include "metrics/metric.h"
#include "metrics/reference.h"
#include "support/inception_weights.h"
#include "support/scratch.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

const TensorFile& weights() {
  static const TensorFile file = inception_weights();
  return file;
}

Inception make_inception(const NetworkOptions& options = {}) { return Inception(weights(), "the formula", "formula", options); }

at::Tensor first_images(std::int64_t count) {
  const nlohmann::json order = fixture_json("fid.json").at("file_order_A");
  std::vector<at::Tensor> images;
  for (std::int64_t i = 0; i < count; ++i) {
    const Image image = read_image(fixtures() / "fid_png_A" / order[static_cast<std::size_t>(i)].get<std::string>(), 3);
    images.push_back(torch::tensor(image.pixels).to(at::kByte).view({image.channels, image.height, image.width}));
  }
  return at::stack(images);
}

}  // namespace

TEST_CASE("the weights by formula are those of the fixtures") {
  const nlohmann::json checksums = fixture_json("fid.json").at("checksums");
  std::size_t checked = 0;
  for (const auto& [name, tensor] : weights().tensors) {
    if (!checksums.contains(name)) continue;
    const nlohmann::json& expected = checksums[name];
    const at::Tensor values = to_torch(tensor).flatten();
    CHECK(values[-1].item<float>() == expected.at("last_f32").get<float>());
    check_close(name, {values.to(at::kDouble).sum().item<double>()}, {expected.at("sum_f64")}, 1e-9 * std::max<double>(1, static_cast<double>(values.numel())));
    ++checked;
  }
  CHECK(checked == checksums.size());
}

TEST_CASE("every layer of Inception is the official one's") {
  const TensorFile debug = read_safetensors(fixtures() / "fid_debug.safetensors");
  const nlohmann::json layers = fixture_json("fid.json").at("debug_layer_order");
  Inception network = make_inception();
  const at::Tensor images = first_images(2);
  check_tensor("pixels", images.to(at::kFloat) / 255, to_torch(debug.at("input_01")), 1e-7);
  const at::Tensor prepared = network.prepare(images);
  check_tensor("resized", (prepared + 1) / 2, to_torch(debug.at("resized_299")), 3e-6);
  std::size_t layer = 0;
  network.trace(prepared, [&](const std::string& name, const at::Tensor& x) {
    REQUIRE(layer < layers.size());
    const std::string block = layers[layer][0];
    INFO(name << " is " << block);
    CHECK(x.sizes().vec() == layers[layer][1].get<std::vector<std::int64_t>>());
    const at::Tensor expected = to_torch(debug.at("mean_hw." + block));
    check_tensor(name, x.mean({2, 3}), expected, 2e-6 * std::max(1.0, max_abs(expected)));
    ++layer;
    return true;
  });
  CHECK(layer == layers.size());
  const NamedFeatures features = network.run(prepared, {"64", "192", "768", "2048"});
  for (const auto& [dims, values] : features) check_tensor(dims, values, to_torch(debug.at("features64_f64_dim" + dims)).to(at::kFloat), 2e-5);
}

TEST_CASE("a folder's features, statistics and every distance are pytorch-fid's and torch-fidelity's") {
  const nlohmann::json json = fixture_json("fid.json");
  const TensorFile stored = read_safetensors(fixtures() / "fid_features.safetensors");
  Inception network = make_inception();
  std::map<std::string, std::map<std::string, at::Tensor>> rows;  // side -> dims -> features
  for (const std::string side : {"A", "B"}) {
    const ImageSource source = folder_source((fixtures() / ("fid_png_" + side)).string(), 3);
    for (std::int64_t i = 0; i < source.count; ++i)
      CHECK(std::filesystem::path(source.name(i)).filename() == json.at("file_order_" + side)[static_cast<std::size_t>(i)].get<std::string>());
    Wanted wanted;
    wanted.rows = {OutputKind::features, OutputKind::spatial, OutputKind::logits};
    wanted.moments = {OutputKind::features, OutputKind::spatial};
    const FeatureSet set = collect_features(network, source, wanted);
    rows[side]["2048"] = set.rows.at(OutputKind::features);
    check_tensor(side, rows[side]["2048"], to_torch(stored.at("features_" + side + "_2048")), 2e-5);
    CHECK(set.moments.at(OutputKind::spatial).mu.size(0) == 2023);
    CHECK(set.moments.at(OutputKind::features).preprocess == network.preprocess());
    check_tensor("logits", set.rows.at(OutputKind::logits), at::mm(rows[side]["2048"], to_torch(weights().at("fc.weight")).t()), 1e-4);
  }
  const at::Tensor &a = rows["A"]["2048"], &b = rows["B"]["2048"];
  check_close("FID", {frechet_distance(feature_statistics(a), feature_statistics(b))}, {json["fid"]["2048"]["exact_nuclear_norm_f64"]}, 1e-5);
  check_close("KID", {polynomial_mmd(a, b)}, {json["kid"]["2048"]["full_unbiased_f64"]}, 1e-6);
  const ManifoldScores prdc = manifold_scores(a, b);
  const nlohmann::json& expected = json["prdc"]["2048"];
  check_close("precision", {prdc.precision}, {expected["precision"]}, 1.001 / 80);
  check_close("recall", {prdc.recall}, {expected["recall"]}, 1.001 / 64);
  check_close("density", {prdc.density}, {expected["density"]}, 1.001 / 400);
  check_close("coverage", {prdc.coverage}, {expected["coverage"]}, 1.001 / 64);
}

TEST_CASE("earlier blocks of Inception, and stopping there") {
  const TensorFile stored = read_safetensors(fixtures() / "fid_features.safetensors");
  Inception network = make_inception();
  const at::Tensor prepared = network.prepare(first_images(3));
  for (const std::string dims : {"64", "192", "768"}) {
    const NamedFeatures alone = network.run(prepared, {dims});
    REQUIRE(alone.size() == 1);
    check_tensor(dims, alone.at(dims), to_torch(stored.at("features_A_" + dims)).narrow(0, 0, 3), 2e-5);
  }
  CHECK(network.run(prepared, {}).empty());
  CHECK_THAT(error_of([&] { network.run(prepared, {"2084"}); }), Catch::Contains("did you mean '2048'"));
}

TEST_CASE("bfloat16 Inception is near, and its shift of the Frechet distance is measured") {
  const TensorFile stored = read_safetensors(fixtures() / "fid_features.safetensors");
  NetworkOptions options;
  options.precision = "bf16";
  Inception network = make_inception(options);
  CHECK(network.recipe().at("network_precision") == "bf16");
  const at::Tensor expected = to_torch(stored.at("features_A_2048")).narrow(0, 0, 16), rounded = network.features(first_images(16));
  const double error = (rounded - expected).norm().item<double>() / expected.norm().item<double>();
  CHECK(error < 0.02);
  CHECK(error > 1e-5);  // it did run in bfloat16
  const FeatureStatistics other = feature_statistics(to_torch(stored.at("features_B_2048")));
  const double exact = frechet_distance(feature_statistics(expected), other), shifted = frechet_distance(feature_statistics(rounded), other);
  WARN("bf16: features differ by " << error << " of their norm, the Frechet distance of 16 images " << shifted << " instead of " << exact);
  CHECK(std::abs(shifted - exact) < 0.1 * exact);
}

TEST_CASE("Inception's file is read, and refused where it is not the published one") {
  const ScratchFolder folder;
  CHECK_THAT(error_of([] { load_feature_network("inception"); }), Catch::Contains("pt_inception-2015-12-05-6726825d.pth") && Catch::Contains("--inception"));
  NetworkOptions options;
  options.weights = (folder / "weights.pth").string();
  CHECK_THAT(error_of([&] { load_feature_network("inception", options); }), Catch::Contains("weights.pth"));
  write_pth_state_dict(folder / "weights.pth", weights());
  CHECK_THAT(error_of([&] { load_feature_network("inception", options); }), Catch::Contains("6726825d") && Catch::Contains("--any-weights"));
  options.any_weights = true;
  const auto network = load_feature_network("inception", options);
  CHECK(network->weights_hash().size() == 64);
  CHECK(network->recipe().at("network_hash") == network->weights_hash());
  const at::Tensor images = first_images(2);
  CHECK(network->features(images).equal(make_inception().features(images)));

  TensorFile broken = weights();
  broken.tensors.erase(broken.tensors.begin() + 7);
  const std::string missing = weights().tensors[7].first;
  CHECK_THAT(error_of([&] { Inception(broken, "x.pth", "", {}); }), Catch::Contains("x.pth") && Catch::Contains(missing));
  broken = weights();
  for (auto& [name, tensor] : broken.tensors) {
    if (name == "Mixed_6b.branch7x7_2.bn.bias") tensor = HostTensor{DType::f32, {3}, std::vector<std::byte>(12)};
  }
  CHECK_THAT(error_of([&] { Inception(broken, "x.pth", "", {}); }), Catch::Contains("Mixed_6b.branch7x7_2.bn.bias") && Catch::Contains("[3]"));
  options.precision = "fp8";
  CHECK_THAT(error_of([&] { load_feature_network("inception", options); }), Catch::Contains("fp8"));
}

TEST_CASE("Inception takes grey and transparent images of any size, and each resize is another recipe") {
  Inception network = make_inception();
  const at::Tensor colour = first_images(1), grey = colour.narrow(1, 0, 1);
  const at::Tensor alpha = at::cat({colour, at::full_like(grey, 7)}, 1);
  CHECK(network.prepare(alpha).equal(network.prepare(colour)));
  CHECK(network.prepare(grey).equal(network.prepare(grey.repeat({1, 3, 1, 1}))));
  for (const std::int64_t height : {1, 7, 299, 301})
    CHECK(network.prepare(at::full({1, 3, height, 299}, 100, at::kByte)).sizes().vec() == std::vector<std::int64_t>{1, 3, 299, 299});
  std::set<std::string> recipes;
  std::vector<at::Tensor> features;
  for (const char* resize : {"pytorch-fid", "clean-fid", "tf1"}) {
    NetworkOptions options;
    options.resize = resize;
    Inception other = make_inception(options);
    recipes.insert(other.preprocess());
    features.push_back(other.run(other.prepare(colour), {"192"}).at("192"));
  }
  CHECK(recipes.size() == 3);
  CHECK(max_abs(features[0] - features[1]) > 1e-4);
  CHECK(max_abs(features[0] - features[2]) > 1e-4);
  NetworkOptions options;
  options.resize = "cleanfid";
  CHECK_THAT(error_of([&] { make_inception(options); }), Catch::Contains("did you mean 'clean-fid'"));
}
