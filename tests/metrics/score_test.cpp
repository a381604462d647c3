#include <torch/torch.h>

#include "metrics/score.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "data/dataset.h"
#include "support/scratch.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;
namespace fs = std::filesystem;

namespace {

/// Features: mean of every channel's quarter; scores: the means. Counts its calls.
class MeanNetwork : public FeatureNetwork {
 public:
  explicit MeanNetwork(std::string hash = "mean-1") : hash_(std::move(hash)) {}
  at::Tensor features(const at::Tensor& images) override {
    ++calls;
    largest_batch = std::max(largest_batch, images.size(0));
    return at::adaptive_avg_pool2d(images.to(at::kFloat), {2, 2}).flatten(1);
  }
  at::Tensor logits(const at::Tensor& images) override { return features(images); }
  std::string weights_hash() const override { return hash_; }
  int calls = 0;
  std::int64_t largest_batch = 0;

 private:
  std::string hash_;
};

class NoClassifier : public FeatureNetwork {
 public:
  at::Tensor features(const at::Tensor& images) override { return images.to(at::kFloat).flatten(1); }
  std::string weights_hash() const override { return "none"; }
};

const FeatureNetworkRow kMeanRow{"mean", "quarter means", 1, 0, "none", nullptr};

/// An environment variable, set back at the end of the scope.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    ::setenv(name, value.c_str(), 1);
  }
  ~Environment() { before_ ? ::setenv(name_, before_->c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> before_;
};

Image grey(std::int64_t height, std::int64_t width, int seed) {
  Image image{1, height, width, {}};
  for (std::int64_t i = 0; i < height * width; ++i) image.pixels.push_back(static_cast<std::uint8_t>((i * 37 + seed * 101 + i * i * seed) % 256));
  return image;
}

bool have_fashion_mnist() {
  const bool there = fs::exists("/usr/share/datasets/fashion-mnist");
  if (!there) WARN("skipped: Debian's package dataset-fashion-mnist is not installed");
  return there;
}

std::vector<Image> test_images(std::vector<std::int64_t>& labels) {
  const auto dataset = open_dataset(DataConfig{}, Split::test);
  std::vector<Image> images;
  for (std::int64_t i = 0; i < dataset->size(); ++i) {
    images.push_back({1, 28, 28, std::vector<std::uint8_t>(784)});
    dataset->read(i, images.back().pixels);
    labels.push_back(dataset->label(i));
  }
  return images;
}

}  // namespace

TEST_CASE("features come in the order of the images, whatever their sizes") {
  MeanNetwork network;
  std::vector<Image> images;
  for (int i = 0; i < 1203; ++i) images.push_back(i % 400 == 7 ? grey(6, 10, i) : grey(4, 4, i));
  std::vector<std::int64_t> progress;
  const auto all = collect_features(
      network, 1203, [&](std::int64_t i) { return images[static_cast<std::size_t>(i)]; }, [&](std::int64_t done) { progress.push_back(done); });
  REQUIRE(all.size(0) == 1203);
  CHECK(network.largest_batch <= 500);
  CHECK(progress.back() == 1203);
  CHECK(std::is_sorted(progress.begin(), progress.end()));
  for (const std::int64_t i : {0, 7, 8, 399, 407, 1202}) {
    const auto one = collect_features(network, 1, [&](std::int64_t) { return images[static_cast<std::size_t>(i)]; });
    CHECK(all[i].equal(one[0]));
  }
  CHECK_THAT(error_of([&] { collect_features(network, 0, {}); }), Catch::Contains("no images"));
}

TEST_CASE("class agreement is the share of images whose largest score is the label's") {
  MeanNetwork network;
  std::vector<Image> images;
  for (std::size_t bright = 0; bright < 4; ++bright) {
    images.push_back({1, 2, 2, std::vector<std::uint8_t>(4, 10)});
    images.back().pixels[bright] = 200;
  }
  CHECK(class_agreement(network, images, {0, 1, 2, 3}) == 1.0);
  CHECK(class_agreement(network, images, {0, 1, 0, 0}) == 0.5);
  CHECK(class_agreement(network, images, {3, 2, 1, 0}) == 0.0);
  CHECK_THAT(error_of([&] { class_agreement(network, images, {0}); }), Catch::Contains("4 images and 1 labels"));
  CHECK_THAT(error_of([&] { class_agreement(network, {}, {}); }), Catch::Contains("0 images"));
  NoClassifier none;
  CHECK_THAT(error_of([&] { class_agreement(none, images, {0, 1, 2, 3}); }), Catch::Contains("classifies"));
}

TEST_CASE("a folder is scored against its own statistics and against another folder") {
  const ScratchFolder folder;
  MeanNetwork network;
  for (const std::string side : {"a", "b"}) {
    fs::create_directories(folder / side);
    for (int i = 0; i < 12; ++i) write_png(folder / (side + "/" + std::to_string(i) + ".png"), grey(8, 8, i + (side == "b" ? 50 : 0)));
  }
  const Reference a = load_reference((folder / "a").string(), kMeanRow, network, 0, {}),
                  b = load_reference((folder / "b").string(), kMeanRow, network, 0, {});
  CHECK(a.statistics.num_images == 12);
  CHECK(a.hash.size() == 64);
  CHECK(a.hash != b.hash);
  CHECK(load_reference((folder / "a").string(), kMeanRow, network, 5, {}).statistics.num_images == 5);
  CHECK(frechet_distance(a.statistics, b.statistics) > 1);

  write_statistics(folder / "a.npz", a.statistics);
  const Reference stored = load_reference((folder / "a.npz").string(), kMeanRow, network, 0, {});
  CHECK(stored.hash == a.hash);
  MeanNetwork other("mean-2");
  CHECK_THAT(error_of([&] { load_reference((folder / "a.npz").string(), kMeanRow, other, 0, {}); }),
             Catch::Contains("mean-1") && Catch::Contains("mean-2"));
  fs::remove(folder / "b/0.png");
  for (int i = 2; i < 12; ++i) fs::remove(folder / ("b/" + std::to_string(i) + ".png"));
  CHECK_THAT(error_of([&] { load_reference((folder / "b").string(), kMeanRow, network, 0, {}); }), Catch::Contains("at least 2"));
}

TEST_CASE("what is no reference is told so, with the datasets there are") {
  MeanNetwork network;
  const auto message = [&](const std::string& spec) { return error_of([&] { load_reference(spec, kMeanRow, network, 0, {}); }); };
  CHECK_THAT(message("fashion_mnits"), Catch::Contains("did you mean 'fashion_mnist'") && Catch::Contains("cifar10"));
  CHECK_THAT(message("/nonexistent/stats.npz"), Catch::Contains("/nonexistent/stats.npz"));
  CHECK_THAT(message("fashion_mnist:validation"), Catch::Contains("'validation'") && Catch::Contains("train and test"));
}

TEST_CASE("a dataset's statistics are computed once and found again by content") {
  const ScratchFolder folder;
  const Environment cache("XDG_CACHE_HOME", (folder / "cache").string());
  fs::create_directories(folder / "images");
  for (int i = 0; i < 9; ++i) write_png(folder / ("images/" + std::to_string(i) + ".png"), grey(8, 8, i));
  DataConfig data;
  data.dataset = "folder";
  data.path = (folder / "images").string();
  data.image_size = {8};
  MeanNetwork network;
  const auto load = [&](MeanNetwork& with, std::int64_t limit = 0) { return load_reference("folder", kMeanRow, with, limit, data); };
  const Reference first = load(network);
  CHECK(first.name == "folder:train");
  CHECK(network.calls == 1);
  CHECK(load(network).hash == first.hash);
  CHECK(network.calls == 1);
  data.dataset.clear();
  CHECK(load(network, 3).statistics.num_images == 3);  // data.path without a name is the place of the dataset asked for
  data.dataset = "cifar10";
  CHECK_THAT(error_of([&] { load(network); }), Catch::Contains("data.path"));  // but not that of another dataset
  data.dataset = "folder";
  CHECK(network.calls == 2);
  MeanNetwork other("mean-2");  // another network computes its own
  load(other);
  CHECK(other.calls == 1);
  CHECK(load(network, 5).statistics.num_images == 5);  // so do fewer images
  CHECK(network.calls == 3);
  write_png(folder / "images/3.png", grey(8, 8, 77));  // and changed ones
  CHECK(load(network).hash != first.hash);
  CHECK(network.calls == 4);
  for (const auto& entry : fs::directory_iterator(folder / "cache/uvit")) std::ofstream(entry.path()) << "damaged";
  load(network);
  CHECK(network.calls == 5);
}

TEST_CASE("a score is one line with its recipe, and one JSON line in a file") {
  const ScratchFolder folder;
  const Score score{"FD[mean]@12", 12.3456789, {{"network_hash", std::string(64, 'a')}, {"solver", "ddim"}, {"seeds", "0..11 \"x\""}}};
  const std::string line = format_score(score);
  CHECK(line == "FD[mean]@12 = 12.3457  (network_hash aaaaaaaaaaaa, seeds 0..11 \"x\", solver ddim)");
  append_score(folder.path().string(), score);
  append_score((folder / "scores.jsonl").string(), score);
  std::ifstream stream(folder / "scores.jsonl");
  int lines = 0;
  for (std::string text; std::getline(stream, text); ++lines) {
    const auto json = nlohmann::json::parse(text);
    CHECK(json["metric"] == score.metric);
    CHECK(json["value"] == score.value);
    CHECK(json["recipe"].get<std::map<std::string, std::string>>() == score.recipe);
  }
  CHECK(lines == 2);
  CHECK_THAT(error_of([&] { append_score("/nonexistent/folder/scores.jsonl", score); }), Catch::Contains("/nonexistent/folder/scores.jsonl"));
}

TEST_CASE("every feature network of the table gives finite features of any images, the same ones in any batch") {
  for (const FeatureNetworkRow& row : feature_network_table()) {
    INFO(row.name);
    const auto network = row.load();
    CHECK(network->weights_hash().size() == 64);
    for (const std::int64_t channels : {1, 3, 4}) {
      const at::Tensor images = at::arange(3 * channels * 40 * 33).remainder(251).to(at::kByte).view({3, channels, 40, 33});
      const at::Tensor features = network->features(images);
      REQUIRE(features.dim() == 2);
      CHECK(features.scalar_type() == at::kFloat);
      CHECK(features.isfinite().all().item<bool>());
      check_tensor("one image alone", network->features(images.narrow(0, 1, 1)), features.narrow(0, 1, 1), 1e-4 * max_abs(features));
    }
    CHECK_THAT(error_of([&] { network->features(at::zeros({2, 2, 28, 28}, at::kByte)); }), Catch::Contains(row.name));
    CHECK_THAT(error_of([&] { network->features(at::zeros({2, 1, 28, 28})); }), Catch::Contains("uint8"));
  }
  CHECK_THAT(error_of([] { find_feature_network("fmnist-cmn"); }), Catch::Contains("did you mean 'fmnist-cnn'"));
}

TEST_CASE("the shipped fmnist-cnn knows garments, and its shipped statistics are of itself") {
  if (!have_fashion_mnist()) return;
  const ScratchFolder folder;
  const Environment cache("XDG_CACHE_HOME", folder.path().string());
  const FeatureNetworkRow& row = find_feature_network("fmnist-cnn");
  const auto network = row.load();
  CHECK(fs::file_size(asset_path("fmnist_cnn.safetensors")) <= 2'000'000);
  std::vector<std::int64_t> labels;
  const std::vector<Image> images = test_images(labels);
  CHECK(class_agreement(*network, images, labels) >= 0.92);

  const Reference train = load_reference("fashion_mnist", row, *network, 0, {});
  CHECK(train.statistics.num_images == 60000);
  CHECK(folder.entries() == 0);  // taken from assets/, not computed
  const auto image = [&](std::int64_t i) { return images[static_cast<std::size_t>(i)]; };
  const at::Tensor features = collect_features(*network, 10000, image);
  const Reference test = load_reference("fashion_mnist:test", row, *network, 500, {});
  CHECK(folder.entries() == 1);
  check_close("test split", {frechet_distance(feature_statistics(features.slice(0, 0, 500)), test.statistics)}, {0.0}, 1e-6);
  // Held-out images are near the training images; the first half of the classes alone is far away.
  const double near = frechet_distance(feature_statistics(features), train.statistics);
  const double far = frechet_distance(feature_statistics(features.index({at::tensor(labels) < 5})), train.statistics);
  CHECK(near > 0);
  CHECK(far > 20 * near);
}

TEST_CASE("assets are looked for where UVIT_ASSETS says, and a damaged network is named") {
  const ScratchFolder folder;
  const Environment assets("UVIT_ASSETS", folder.path().string());
  CHECK_THAT(error_of([] { load_reference("fashion_mnist", find_feature_network("fmnist-cnn"), *find_feature_network("fmnist-cnn").load(), 0, {}); }),
             Catch::Contains("fmnist_cnn.safetensors") && Catch::Contains("UVIT_ASSETS"));
  std::ofstream(folder / "fmnist_cnn.safetensors") << "no network";
  CHECK_THAT(error_of([] { find_feature_network("fmnist-cnn").load(); }), Catch::Contains("fmnist_cnn.safetensors"));
}
