#include <torch/torch.h>

#include "metrics/score.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "data/dataset.h"
#include "io/npz.h"
#include "metrics/metric.h"
#include "metrics/reference.h"
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
  std::string name() const override { return "mean"; }
  std::int64_t channels() const override { return 1; }
  std::vector<FeatureOutput> outputs() const override { return {{"means", OutputKind::features, 4}, {"scores", OutputKind::logits, 4}}; }
  at::Tensor prepare(const at::Tensor& images) const override { return images.to(at::kFloat); }
  NamedFeatures run(const at::Tensor& prepared, const std::vector<std::string>& wanted) override {
    ++calls;
    largest_batch = std::max(largest_batch, prepared.size(0));
    NamedFeatures result;
    for (const std::string& each : wanted) result[each] = at::adaptive_avg_pool2d(prepared, {2, 2}).flatten(1) / divisor;
    return result;
  }
  std::string weights_hash() const override { return hash_; }
  std::string preprocess() const override { return preparation; }
  int calls = 0;
  std::int64_t largest_batch = 0;
  float divisor = 1;
  std::string preparation = "none";

 private:
  std::string hash_;
};

class NoClassifier : public MeanNetwork {
 public:
  std::vector<FeatureOutput> outputs() const override { return {{"means", OutputKind::features, 4}}; }
};

const Wanted kMoments = wanted_for({"fid"});

const FeatureStatistics& statistics_of(const Reference& reference) { return reference.set.moments.at(OutputKind::features); }

at::Tensor rows_of(FeatureNetwork& network, const ImageSource& source, const std::function<void(std::int64_t)>& on_progress = {}) {
  Wanted wanted;
  wanted.rows = {OutputKind::features};
  return collect_features(network, source, wanted, on_progress).rows.at(OutputKind::features);
}

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
  const at::Tensor all = rows_of(network, memory_source(images), [&](std::int64_t done) { progress.push_back(done); });
  REQUIRE(all.size(0) == 1203);
  CHECK(network.largest_batch <= CollectOptions{}.batch_size);
  CHECK(progress.back() == 1203);
  CHECK(std::is_sorted(progress.begin(), progress.end()));
  for (const std::size_t i : {0, 7, 8, 399, 407, 1202}) CHECK(all[static_cast<std::int64_t>(i)].equal(rows_of(network, memory_source({images[i]}))[0]));
  CHECK_THAT(error_of([&] { rows_of(network, {}); }), Catch::Contains("no images"));
}

TEST_CASE("an image that fails to read, or has no finite features, stops the collection by name") {
  MeanNetwork network;
  ImageSource source;
  source.count = 1000;
  source.name = [](std::int64_t i) { return "image-" + std::to_string(i); };
  source.read = [](std::int64_t i) {
    if (i == 333) throw Error("image-333 is broken");
    return grey(4, 4, static_cast<int>(i));
  };
  CHECK_THAT(error_of([&] { rows_of(network, source); }), Catch::Contains("image-333 is broken"));
  source.read = [](std::int64_t i) { return Image{1, 2, 2, std::vector<std::uint8_t>(4, i == 500 ? 0 : 9)}; };
  network.divisor = 0;  // 0 / 0 for image 500, infinite for the others
  CHECK_THAT(error_of([&] { rows_of(network, source); }), Catch::Contains("image-0") && Catch::Contains("not finite"));
}

TEST_CASE("labels and several outputs come with the features, and any number of threads gives the same") {
  MeanNetwork network;
  std::vector<Image> images;
  std::vector<std::int64_t> labels;
  for (int i = 0; i < 200; ++i) {
    images.push_back(grey(5 + i % 3, 6, i));
    labels.push_back(i % 7);
  }
  Wanted wanted;
  wanted.rows = {OutputKind::features, OutputKind::logits};
  wanted.moments = {OutputKind::features};
  const FeatureSet set = collect_features(network, memory_source(images, labels), wanted);
  CHECK(set.labels == labels);
  CHECK(set.moments.at(OutputKind::features).num_images == 200);
  CHECK(set.moments.at(OutputKind::features).network == "mean");
  for (const std::int64_t threads : {1, 5}) {
    CollectOptions options;
    options.threads = threads;
    options.batch_size = 9;
    CHECK(collect_features(network, memory_source(images), wanted, {}, options).rows.at(OutputKind::logits).equal(set.rows.at(OutputKind::logits)));
  }
  wanted.output = "meens";
  CHECK_THAT(error_of([&] { collect_features(network, memory_source(images), wanted); }), Catch::Contains("did you mean 'means'"));
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
  CHECK_THAT(error_of([&] { class_agreement(none, images, {0, 1, 2, 3}); }), Catch::Contains("class scores"));
}

TEST_CASE("a folder is scored against its own statistics and against another folder") {
  const ScratchFolder folder;
  MeanNetwork network;
  for (const std::string side : {"a", "b"}) {
    fs::create_directories(folder / side);
    for (int i = 0; i < 12; ++i) write_png(folder / (side + "/" + std::to_string(i) + ".png"), grey(8, 8, i + (side == "b" ? 50 : 0)));
  }
  const Reference a = load_reference((folder / "a").string(), network, kMoments, 0, {}),
                  b = load_reference((folder / "b").string(), network, kMoments, 0, {});
  CHECK(a.set.num_images == 12);
  CHECK(a.hash.size() == 64);
  CHECK(a.hash != b.hash);
  CHECK(load_reference((folder / "a").string(), network, kMoments, 5, {}).set.num_images == 5);
  CHECK(frechet_distance(statistics_of(a), statistics_of(b)) > 1);

  write_statistics(folder / "a.npz", statistics_of(a));
  const Reference stored = load_reference((folder / "a.npz").string(), network, kMoments, 0, {});
  CHECK(stored.hash == a.hash);
  MeanNetwork other("mean-2");
  CHECK_THAT(error_of([&] { load_reference((folder / "a.npz").string(), other, kMoments, 0, {}); }),
             Catch::Contains("mean-1") && Catch::Contains("mean-2"));
  MeanNetwork prepared;
  prepared.preparation = "halved";
  CHECK_THAT(error_of([&] { load_reference((folder / "a.npz").string(), prepared, kMoments, 0, {}); }), Catch::Contains("'none', not by 'halved'"));
  CHECK_THAT(error_of([&] { load_reference((folder / "a.npz").string(), network, wanted_for({"kid"}), 0, {}); }), Catch::Contains("needs the images"));
  const Reference rows = load_reference((folder / "a").string(), network, wanted_for({"kid"}), 0, {});
  CHECK(rows.set.rows.at(OutputKind::features).size(0) == 12);
  CHECK(comparison_recipe(a.set, b).at("reference_hash") == b.hash);
  fs::remove(folder / "b/0.png");
  for (int i = 2; i < 12; ++i) fs::remove(folder / ("b/" + std::to_string(i) + ".png"));
  CHECK_THAT(error_of([&] { load_reference((folder / "b").string(), network, kMoments, 0, {}); }), Catch::Contains("at least 2"));
}

TEST_CASE("an .npz of images is a reference as the folder of them is, with its classes") {
  const ScratchFolder folder;
  MeanNetwork network;
  fs::create_directories(folder / "images");
  HostTensor pixels{DType::u8, {6, 8, 4, 3}, {}}, labels{DType::i64, {6}, {}};
  for (int i = 0; i < 6; ++i) {
    Image image{3, 8, 4, {}};
    for (int j = 0; j < 96; ++j) image.pixels.push_back(static_cast<std::uint8_t>(17 * i + 3 * j));
    write_png(folder / ("images/" + std::to_string(i) + ".png"), image);
    for (std::size_t p = 0; p < 32; ++p)
      for (std::size_t c = 0; c < 3; ++c) pixels.data.push_back(static_cast<std::byte>(image.pixels[c * 32 + p]));
    labels.data.push_back(static_cast<std::byte>(i));
    labels.data.resize(labels.data.size() + 7);
  }
  const std::string npz = (folder / "images.npz").string();
  write_npz(npz, {{{"arr_0", pixels}, {"arr_1", labels}}, {}});
  const ImageSource source = npz_source(read_npz(npz), npz, 4);
  CHECK(source.count == 4);
  CHECK(source.labels == std::vector<std::int64_t>{0, 1, 2, 3});
  CHECK(source.read(2).pixels == read_image(folder / "images/2.png", 3).pixels);
  CHECK(source.name(2) == npz + "[2]");

  class ColourNetwork : public MeanNetwork {
   public:
    std::int64_t channels() const override { return 3; }
    at::Tensor prepare(const at::Tensor& images) const override { return images.to(at::kFloat).mean(1, true); }
  } colour;
  const Reference ours = load_reference(npz, colour, kMoments, 0, {}), files = load_reference((folder / "images").string(), colour, kMoments, 0, {});
  CHECK(ours.hash == files.hash);
  CHECK(ours.images.count == 6);
  CHECK(describe_shapes(ours.set.shapes) == "8 x 4 RGB");
  pixels.shape = {6, 96};
  write_npz(npz, {{{"arr_0", pixels}}, {}});
  CHECK_THAT(error_of([&] { load_reference(npz, colour, kMoments, 0, {}); }), Catch::Contains(npz) && Catch::Contains("[6, 96]"));
}

TEST_CASE("images handed over one by one give what a collection of them gives, and sizes are told") {
  MeanNetwork network;
  std::vector<Image> images;
  for (int i = 0; i < 100; ++i) images.push_back(i % 7 == 3 ? grey(6, 10, i) : grey(4, 4, i));
  Wanted wanted = kMoments;
  wanted.rows = {OutputKind::features};
  FeatureCollector collector(network, wanted, 8);
  for (const Image& image : images) collector.add(image);
  const FeatureSet one_by_one = collector.finish(std::vector<std::int64_t>(100, 2)), all = collect_features(network, memory_source(images), wanted);
  CHECK(one_by_one.num_images == 100);
  CHECK(one_by_one.labels.size() == 100);
  CHECK(one_by_one.rows.at(OutputKind::features).equal(all.rows.at(OutputKind::features)));
  check_tensor("sigma", one_by_one.moments.at(OutputKind::features).sigma, all.moments.at(OutputKind::features).sigma, 1e-9);
  CHECK((one_by_one.shapes == all.shapes));
  CHECK(describe_shapes(all.shapes) == "4 x 4 to 6 x 10 grey");
  CHECK(describe_shapes({{1, 2, 2}, {3, 2, 2}}) == "2 x 2 RGB and grey");
  CHECK(describe_shapes({}) == "unknown");
}

TEST_CASE("what is no reference is told so, with the datasets there are") {
  MeanNetwork network;
  const auto message = [&](const std::string& spec) { return error_of([&] { load_reference(spec, network, kMoments, 0, {}); }); };
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
  const auto load = [&](MeanNetwork& with, std::int64_t limit = 0) { return load_reference("folder", with, kMoments, limit, data); };
  const Reference first = load(network);
  CHECK(first.name == "folder:train");
  CHECK(network.calls == 1);
  CHECK(load(network).hash == first.hash);
  CHECK(network.calls == 1);
  data.dataset.clear();
  CHECK(load(network, 3).set.num_images == 3);  // data.path without a name is the place of the dataset asked for
  data.dataset = "cifar10";
  CHECK_THAT(error_of([&] { load(network); }), Catch::Contains("data.path"));  // but not that of another dataset
  data.dataset = "folder";
  CHECK(network.calls == 2);
  MeanNetwork other("mean-2");  // another network computes its own
  load(other);
  CHECK(other.calls == 1);
  CHECK(load(network, 5).set.num_images == 5);  // so do fewer images
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
  const Score score{"FD[mean]@12", 12.3456789, std::nullopt, {{"network_hash", std::string(64, 'a')}, {"solver", "ddim"}, {"seeds", "0..11 \"x\""}}};
  const std::string line = format_score(score);
  CHECK(line == "FD[mean]@12 = 12.3457  (network_hash aaaaaaaaaaaa, seeds 0..11 \"x\", solver ddim)");
  Score with_interval = score;
  with_interval.interval = Interval{12.3, 12.4};
  CHECK_THAT(format_score(with_interval), Catch::StartsWith("FD[mean]@12 = 12.3457 [12.3, 12.4]  ("));
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

TEST_CASE("fmnist-cnn gives finite features of any images, the same ones in any batch") {
  const auto network = load_feature_network("fmnist-cnn");
  CHECK(network->weights_hash().size() == 64);
  for (const std::int64_t channels : {1, 3, 4}) {
    const at::Tensor images = at::arange(3 * channels * 40 * 33).remainder(251).to(at::kByte).view({3, channels, 40, 33});
    const at::Tensor features = network->features(images);
    REQUIRE(features.dim() == 2);
    CHECK(features.size(1) == network->outputs().front().dims);
    CHECK(features.scalar_type() == at::kFloat);
    CHECK(features.isfinite().all().item<bool>());
    check_tensor("one image alone", network->features(images.narrow(0, 1, 1)), features.narrow(0, 1, 1), 1e-4 * max_abs(features));
  }
  CHECK_THAT(error_of([&] { network->features(at::zeros({2, 2, 28, 28}, at::kByte)); }), Catch::Contains("fmnist-cnn"));
  CHECK_THAT(error_of([&] { network->features(at::zeros({2, 1, 28, 28})); }), Catch::Contains("uint8"));
  CHECK_THAT(error_of([] { load_feature_network("fmnist-cmn"); }), Catch::Contains("did you mean 'fmnist-cnn'"));
  NetworkOptions options;
  options.resize = "clean-fid";
  CHECK_THAT(error_of([&] { load_feature_network("fmnist-cnn", options); }), Catch::Contains("of its own"));
}

TEST_CASE("the shipped fmnist-cnn knows garments, and its shipped statistics are of itself") {
  if (!have_fashion_mnist()) return;
  const ScratchFolder folder;
  const Environment cache("XDG_CACHE_HOME", folder.path().string());
  const auto network = load_feature_network("fmnist-cnn");
  CHECK(fs::file_size(asset_path("fmnist_cnn.safetensors")) <= 2'000'000);
  std::vector<std::int64_t> labels;
  const std::vector<Image> images = test_images(labels);
  CHECK(class_agreement(*network, images, labels) >= 0.92);

  const Reference train = load_reference("fashion_mnist", *network, kMoments, 0, {});
  CHECK(train.set.num_images == 60000);
  CHECK(folder.entries() == 0);  // taken from assets/, not computed
  const at::Tensor features = rows_of(*network, memory_source(images));
  const Reference test = load_reference("fashion_mnist:test", *network, kMoments, 500, {});
  CHECK(folder.entries() == 1);
  check_close("test split", {frechet_distance(feature_statistics(features.slice(0, 0, 500)), statistics_of(test))}, {0.0}, 1e-6);
  // Held-out images are near the training images; the first half of the classes alone is far away.
  const double near = frechet_distance(feature_statistics(features), statistics_of(train));
  const double far = frechet_distance(feature_statistics(features.index({at::tensor(labels) < 5})), statistics_of(train));
  CHECK(near > 0);
  CHECK(far > 20 * near);
}

TEST_CASE("assets are looked for where UVIT_ASSETS says, and a damaged network is named") {
  const ScratchFolder folder;
  const Environment assets("UVIT_ASSETS", folder.path().string());
  CHECK_THAT(error_of([] { load_feature_network("fmnist-cnn"); }), Catch::Contains("fmnist_cnn.safetensors") && Catch::Contains("UVIT_ASSETS"));
  std::ofstream(folder / "fmnist_cnn.safetensors") << "no network";
  CHECK_THAT(error_of([] { load_feature_network("fmnist-cnn"); }), Catch::Contains("fmnist_cnn.safetensors"));
}
