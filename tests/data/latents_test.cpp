#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <set>

#include "core/random.h"
#include "data/datasets.h"
#include "data/latent_index.h"
#include "data/loader.h"
#include "data_files.h"
#include "io/npz.h"
#include "io/safetensors.h"

namespace fs = std::filesystem;
using namespace uvit;
using namespace uvit::test;

namespace {

HostTensor floats(std::vector<std::int64_t> shape, const std::function<float(std::size_t)>& value) {
  HostTensor tensor{DType::f32, std::move(shape), {}};
  tensor.data.resize(static_cast<std::size_t>(tensor.numel()) * sizeof(float));
  for (std::size_t i = 0; i < static_cast<std::size_t>(tensor.numel()); ++i) tensor.as<float>()[i] = value(i);
  return tensor;
}

HostTensor numbers(const std::vector<std::int64_t>& values) {
  HostTensor tensor{DType::i64, {static_cast<std::int64_t>(values.size())}, std::vector<std::byte>(values.size() * sizeof(std::int64_t))};
  std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
  return tensor;
}

/// Five latents of 2 x 1 x 3, in shards of 2: mean of value j of image i is 10 i + j (+ 100 mirrored), log variance log(4).
LatentIndex write_latents(const fs::path& folder, bool flips) {
  fs::create_directories(folder);
  LatentIndex index{5, 2, 2, 1, 3, 0.5, flips, "abc", "fake", 3, {"a", "b", "c"}, {0.0, 0.0}, {1.0, 1.0}};
  write_latent_index(folder, index);
  for (std::int64_t first = 0; first < 5; first += 2) {
    const std::int64_t n = std::min<std::int64_t>(2, 5 - first);
    const auto moments = [&](float base) {
      return floats({n, 4, 1, 3}, [&, base](std::size_t i) {
        const std::size_t image = static_cast<std::size_t>(first) + i / 12, value = i % 12;
        return value < 6 ? base + static_cast<float>(10 * image + value) : std::log(4.0F);
      });
    };
    TensorFile shard;
    shard.tensors.emplace_back("moments", moments(0));
    if (flips) shard.tensors.emplace_back("moments_flipped", moments(100));
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < n; ++i) labels.push_back((first + i) % 3);
    shard.tensors.emplace_back("labels", numbers(labels));
    write_safetensors(shard_path(folder, "latents", first / 2), shard);
  }
  return index;
}

/// Captions of 2 x 2: caption k is filled with k; image i has captions 2i and 2i + 1; the empty text is -1.
void write_captions(const fs::path& folder) {
  for (std::int64_t first = 0; first < 10; first += 4) {
    const std::int64_t n = std::min<std::int64_t>(4, 10 - first);
    TensorFile shard;
    shard.tensors.emplace_back("context", floats({n, 2, 2}, [&](std::size_t i) { return static_cast<float>(first) + static_cast<float>(i / 4); }));
    std::vector<std::int64_t> images;
    for (std::int64_t i = 0; i < n; ++i) images.push_back((first + i) / 2);
    shard.tensors.emplace_back("image", numbers(images));
    write_safetensors(shard_path(folder, "captions", first / 4), shard);
  }
  TensorFile empty;
  empty.tensors.emplace_back("context", floats({2, 2}, [](std::size_t) { return -1.0F; }));
  write_safetensors(folder / "empty_context.safetensors", empty);
  write_caption_index(folder, {10, 4, 2, 2, "def"});
}

DataConfig config_of(const fs::path& path) {
  DataConfig config;
  config.dataset = "latents";
  config.path = path.string();
  config.channels = 2;
  config.image_size = {1, 3};
  config.num_classes = 3;
  config.scale_factor = 0.5;
  return config;
}

std::vector<float> values_of(const Dataset& dataset, std::int64_t index, const SampleDraw& draw) {
  std::vector<float> values(6);
  dataset.read_values(index, draw, values);
  return values;
}

}  // namespace

TEST_CASE("latents are scaled draws of their posterior, functions of seed and sample alone; a flip takes the mirrored image's") {
  const ScratchFolder folder;
  write_latents(folder / "train", true);
  const auto dataset = open_dataset(config_of(folder.path()), Split::train);
  CHECK(dataset->latent());
  CHECK(dataset->size() == 5);
  CHECK(dataset->class_names() == std::vector<std::string>{"a", "b", "c"});
  for (std::int64_t i = 0; i < 5; ++i) CHECK(dataset->label(i) == i % 3);
  CHECK(values_of(*dataset, 3, {.noise = false}) == std::vector<float>{15, 15.5, 16, 16.5, 17, 17.5});
  CHECK(values_of(*dataset, 4, {.flip = true, .noise = false}) == std::vector<float>{70, 70.5, 71, 71.5, 72, 72.5});

  std::vector<float> noise(6);
  RandomStream(9, RandomPurpose::latent, 77).fill_normal(noise);
  const std::vector<float> drawn = values_of(*dataset, 3, {.seed = 9, .sample = 77});
  for (std::size_t j = 0; j < 6; ++j) CHECK(drawn[j] == Approx(0.5 * (30 + static_cast<double>(j) + 2 * noise[j])).epsilon(1e-6));
  CHECK(values_of(*dataset, 3, {.seed = 9, .sample = 78}) != drawn);
}

TEST_CASE("a latent dataset takes a caption of its image at random and knows the empty text; the loader hands contexts on") {
  const ScratchFolder folder;
  write_latents(folder / "train", false);
  write_captions(folder / "train");
  const auto dataset = open_dataset(config_of(folder.path()), Split::train);
  CHECK(dataset->context_tokens() == 2);
  CHECK(dataset->context_dim() == 2);
  std::vector<float> context(4);
  int second = 0;
  for (std::uint64_t sample = 0; sample < 400; ++sample) {
    dataset->read_context(3, {.seed = 1, .sample = sample}, context);
    CHECK((context[0] == 6 || context[0] == 7));
    second += context[0] == 7;
  }
  CHECK(second > 140);
  CHECK(second < 260);
  dataset->read_context(3, {.noise = false}, context);
  CHECK(context == std::vector<float>{6, 6, 6, 6});
  dataset->read_empty_context(context);
  CHECK(context == std::vector<float>{-1, -1, -1, -1});

  LoaderOptions options;
  options.batch_size = 4;
  DataLoader loader(*dataset, options);
  const Batch batch = loader.next();
  REQUIRE(batch.contexts.size() == 16);
  for (std::size_t i = 0; i < 4; ++i) CHECK(std::floor(batch.contexts[4 * i] / 2) == batch.indexes[i]);
}

TEST_CASE("latents that do not fit the configuration are refused with what to do") {
  const ScratchFolder folder;
  LatentIndex index = write_latents(folder / "train", false);
  const auto refused = [&](auto change, const std::vector<std::string>& words) {
    DataConfig config = config_of(folder.path());
    change(config);
    check_error([&] { open_dataset(config, Split::train); }, words);
  };
  refused([](DataConfig& c) { c.scale_factor = 0.18215; }, {"scaled by 0.5", "data.scale_factor is 0.18215"});
  refused([](DataConfig& c) { c.image_size = {3}; }, {"2 x 1 x 3", "data.image_size"});
  refused([](DataConfig& c) { c.flip = true; }, {"--flip"});
  refused([](DataConfig& c) { c.num_classes = 4; }, {"has 3 classes"});
  check_error([&] { open_dataset(config_of(folder.path()), Split::test); }, {"no test split", "eval_every"});
  const auto dataset = open_dataset(config_of(folder.path()), Split::train);
  std::vector<std::uint8_t> pixels(6);
  check_error([&] { dataset->read(0, pixels); }, {"no pixels"});

  fs::resize_file(shard_path(folder / "train", "latents", 1), 100);
  refused([](DataConfig&) {}, {"latents-00001.safetensors"});
  index.mean.clear();
  write_latent_index(folder / "train", index);
  refused([](DataConfig&) {}, {"not encoded to its end"});
  put(folder / "train/latents.json", Bytes{'{'});
  refused([](DataConfig&) {}, {"latents.json", "damaged"});
}

TEST_CASE("an image without a caption, and captions of another size, are refused") {
  const ScratchFolder folder;
  write_latents(folder / "train", false);
  write_captions(folder / "train");
  write_caption_index(folder / "train", {8, 4, 2, 2, "def"});
  check_error([&] { open_dataset(config_of(folder.path()), Split::train); }, {"image 4", "no caption"});
  write_caption_index(folder / "train", {10, 4, 2, 3, "def"});
  check_error([&] { open_dataset(config_of(folder.path()), Split::train); }, {"captions-00000.safetensors", "[4, 2, 3]"});
}

TEST_CASE("the official folder of MS-COCO features is read as it is") {
  const ScratchFolder folder;
  const auto write = [&](const fs::path& path, std::vector<std::int64_t> shape, float value) {
    fs::create_directories(path.parent_path());
    write_npy(path, floats(std::move(shape), [value](std::size_t) { return value; }));
  };
  for (int i = 0; i < 3; ++i) {
    write(folder / fmt::format("train/{}.npy", i), {4, 1, 3}, static_cast<float>(i));
    for (int k = 0; k <= i; ++k) write(folder / fmt::format("train/{}_{}.npy", i, k), {2, 5}, static_cast<float>(10 * i + k));
  }
  write(folder / "empty_context.npy", {2, 5}, -2);
  DataConfig config = config_of(folder.path());
  config.dataset = "coco_features";
  config.num_classes = 0;
  const auto dataset = open_dataset(config, Split::train);
  CHECK(dataset->size() == 3);
  CHECK(dataset->context_tokens() == 2);
  CHECK(dataset->context_dim() == 5);
  CHECK(values_of(*dataset, 2, {.noise = false}) == std::vector<float>(6, 1.0F));
  std::vector<float> context(10);
  std::set<float> seen;
  for (std::uint64_t sample = 0; sample < 60; ++sample) {
    dataset->read_context(2, {.sample = sample}, context);
    seen.insert(context[0]);
  }
  CHECK(seen == std::set<float>{20, 21, 22});
  dataset->read_empty_context(context);
  CHECK(context == std::vector<float>(10, -2.0F));

  fs::remove(folder / "train/1_0.npy");
  fs::remove(folder / "train/1_1.npy");
  check_error([&] { open_dataset(config, Split::train); }, {"image 1", "1_0.npy"});
  check_error([&] { open_dataset(config, Split::test); }, {"val"});
}
