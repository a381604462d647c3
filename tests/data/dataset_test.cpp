#include "data/dataset.h"

#include <catch2/catch.hpp>
#include <set>

#include "data_files.h"

using namespace uvit;
using namespace uvit::test;
namespace fs = std::filesystem;

namespace {

Bytes idx_bytes(const std::vector<std::uint32_t>& shape, const Bytes& data) {
  Bytes bytes = {0, 0, 8, static_cast<std::uint8_t>(shape.size())};
  for (const std::uint32_t length : shape) {
    for (const int shift : {24, 16, 8, 0}) bytes.push_back(static_cast<std::uint8_t>(length >> shift));
  }
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

struct IdxFiles {
  Bytes images = idx_bytes({6, 4, 5}, pattern(120, 3)), labels = idx_bytes({6}, {0, 1, 2, 2, 1, 0});
  void write(const fs::path& folder, bool gzip) const {
    for (const std::string prefix : {"train", "t10k"}) {
      const std::string ending = gzip ? "-ubyte.gz" : "-ubyte";
      put(folder / (prefix + "-images-idx3" + ending), gzip ? gzipped(images) : images);
      put(folder / (prefix + "-labels-idx1" + ending), gzip ? gzipped(labels) : labels);
    }
  }
};

DataConfig config_of(const std::string& dataset, const fs::path& path, std::vector<std::int64_t> size, std::int64_t channels) {
  DataConfig config;
  config.dataset = dataset;
  config.path = path.string();
  config.image_size = std::move(size);
  config.channels = channels;
  return config;
}

Bytes read_at(const Dataset& dataset, std::int64_t index) {
  Bytes pixels(static_cast<std::size_t>(dataset.channels() * dataset.height() * dataset.width()));
  dataset.read(index, pixels);
  return pixels;
}

void check_open_error(const DataConfig& config, const std::vector<std::string>& words, Split split = Split::train) {
  check_error([&] { open_dataset(config, split); }, words);
}

Bytes cifar_record(const Bytes& labels, std::uint32_t seed) {
  Bytes record = labels;
  const Bytes pixels = pattern(3072, seed);
  record.insert(record.end(), pixels.begin(), pixels.end());
  return record;
}

}  // namespace

TEST_CASE("every dataset of the table has a name, a text and a clear error for a place without data") {
  const ScratchFolder folder;
  std::set<std::string> names;
  for (const DatasetRow& row : dataset_table()) {
    INFO(row.name);
    CHECK(names.insert(row.name).second);
    CHECK(!row.description.empty());
    check_open_error(config_of(row.name, folder.path(), {4}, 1), {folder.path().string()});
    if (row.default_path.empty()) check_open_error(config_of(row.name, "", {4}, 1), {"data.path"});
  }
  check_open_error(config_of("fashion_mnits", folder.path(), {4}, 1), {"fashion_mnits", "fashion_mnist"});
  check_open_error(config_of("fashion_mnist", folder.path(), {4}, 1), {"train-images", "apt-get install dataset-fashion-mnist"});
}

TEST_CASE("IDX files read the same plain and compressed") {
  const ScratchFolder plain, packed;
  const IdxFiles files;
  files.write(plain.path(), false);
  files.write(packed.path(), true);
  for (const Split split : {Split::train, Split::test}) {
    for (const fs::path& folder : {plain.path(), packed.path()}) {
      const auto dataset = open_dataset(config_of("idx", folder, {4, 5}, 1), split);
      REQUIRE(dataset->size() == 6);
      CHECK(dataset->num_classes() == 3);
      CHECK(dataset->height() == 4);
      CHECK(dataset->width() == 5);
      for (std::int64_t i = 0; i < 6; ++i) {
        CHECK(dataset->label(i) == files.labels[static_cast<std::size_t>(8 + i)]);
        const auto begin = files.images.begin() + 16 + 20 * i;
        CHECK(read_at(*dataset, i) == Bytes(begin, begin + 20));
      }
      CHECK_THAT(dataset->describe(4), Catch::Contains(folder.string()) && Catch::Contains("[4]"));
    }
  }
}

TEST_CASE("images in memory convert to the channels, size and number that the config asks for") {
  const ScratchFolder folder;
  IdxFiles().write(folder.path(), false);
  auto config = config_of("idx", folder.path(), {4, 5}, 1);
  const auto grey = open_dataset(config, Split::train);
  config.channels = 3;
  config.limit = 2;
  const auto colour = open_dataset(config, Split::train);
  CHECK(colour->size() == 2);
  const Bytes one = read_at(*grey, 1), three = read_at(*colour, 1);
  for (std::size_t i = 0; i < three.size(); ++i) CHECK(three[i] == one[i % one.size()]);
  config.image_size = {2, 2};
  const auto small = open_dataset(config, Split::train);
  CHECK(read_at(*small, 0) == resize_and_center_crop({3, 4, 5, read_at(*colour, 0)}, 2, 2).pixels);
  config.image_size = {4, 6};
  check_open_error(config, {"4 x 6", "4 x 5", "never enlarged", folder.path().string()});
}

TEST_CASE("damaged IDX files are named, with what was expected and what was found") {
  const ScratchFolder folder;
  const fs::path images = folder.path() / "train-images-idx3-ubyte", labels = folder.path() / "train-labels-idx1-ubyte";
  const auto config = config_of("idx", folder.path(), {4, 5}, 1);
  const IdxFiles good;
  const auto with_images = [&](const Bytes& bytes) {
    good.write(folder.path(), false);
    put(images, bytes);
  };
  const auto first = [](const Bytes& bytes, std::size_t count) { return Bytes(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count)); };

  with_images(first(good.images, 135));
  check_open_error(config, {images.string(), "truncated", "expected 136 bytes", "found 135"});
  with_images(first(good.images, 9));
  check_open_error(config, {images.string(), "truncated", "found 9"});
  with_images({});
  check_open_error(config, {images.string(), "truncated", "found 0"});
  Bytes longer = good.images;
  longer.push_back(0);
  with_images(longer);
  check_open_error(config, {images.string(), "too much", "expected 136 bytes", "found 137"});
  with_images(good.labels);  // the wrong file under this name
  check_open_error(config, {images.string(), "0x00000801", "expected 0x00000803"});
  with_images(idx_bytes({0xFFFFFFFFu, 0xFFFFFFFFu, 0xFFFFFFFFu}, {1, 2, 3}));
  check_open_error(config, {images.string(), "impossible size"});
  with_images(idx_bytes({5, 4, 5}, pattern(100, 1)));
  check_open_error(config, {"5 images", "6 labels", labels.string()});
  with_images(idx_bytes({6, 0, 5}, {}));
  check_open_error(config, {images.string(), "without pixels"});
  good.write(folder.path(), false);
  put(images, idx_bytes({0, 4, 5}, {}));
  put(labels, idx_bytes({0}, {}));
  check_open_error(config, {"no images"});
  fs::remove(labels);
  check_open_error(config, {"no file", "train-labels-idx1-ubyte"});
}

TEST_CASE("a cut or altered gzip stream is named, with what was expected and what was found") {
  const ScratchFolder folder;
  const fs::path images = folder.path() / "train-images-idx3-ubyte.gz";
  const auto config = config_of("idx", folder.path(), {4, 5}, 1);
  const IdxFiles good;
  good.write(folder.path(), true);
  const Bytes whole = get(images);
  for (const std::size_t keep : {whole.size() - 1, whole.size() - 9, whole.size() / 2, std::size_t{12}}) {
    INFO(keep << " of " << whole.size());
    put(images, Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(keep)));
    check_open_error(config, {images.string(), "truncated", "expected", "found", "gzip stream ends early"});
  }
  Bytes altered = whole;
  altered[altered.size() - 6] ^= 0xFF;  // within the checksum at its end
  put(images, altered);
  check_open_error(config, {images.string(), "gzip"});
}

TEST_CASE("labels and the number of classes must agree") {
  const ScratchFolder folder;
  IdxFiles files;
  files.labels = idx_bytes({6}, {0, 1, 2, 9, 1, 0});
  files.write(folder.path(), false);
  auto config = config_of("idx", folder.path(), {4, 5}, 1);
  config.num_classes = 3;
  check_open_error(config, {"train-images-idx3-ubyte[3]", "label", "9", "3 classes"});
  config.num_classes = 12;
  CHECK(open_dataset(config, Split::train)->num_classes() == 12);
  config.num_classes = 0;
  CHECK(open_dataset(config, Split::train)->num_classes() == 10);
  files.labels = idx_bytes({6}, {0, 1, 2, 10, 1, 0});
  files.write(folder.path(), false);
  config.dataset = "fashion_mnist";
  check_open_error(config, {"[3]", "10"});
  IdxFiles().write(folder.path(), false);
  config.num_classes = 11;
  check_open_error(config, {"data.num_classes is 11", "has 10 classes"});
}

TEST_CASE("CIFAR's binary files read in the order of the batches") {
  const ScratchFolder folder;
  auto config = config_of("cifar10", folder.path(), {32}, 3);
  for (std::uint32_t batch = 1; batch <= 5; ++batch) {
    Bytes bytes = cifar_record({static_cast<std::uint8_t>(batch)}, 2 * batch);
    const Bytes second = cifar_record({9}, 2 * batch + 1);
    bytes.insert(bytes.end(), second.begin(), second.end());
    put(folder.path() / "cifar-10-batches-bin" / ("data_batch_" + std::to_string(batch) + ".bin"), bytes);
  }
  for (const fs::path& path : {folder.path(), folder.path() / "cifar-10-batches-bin"}) {
    config.path = path.string();
    const auto dataset = open_dataset(config, Split::train);
    REQUIRE(dataset->size() == 10);
    CHECK(dataset->class_names().at(9) == "truck");
    CHECK(dataset->label(4) == 3);
    CHECK(dataset->label(5) == 9);
    CHECK(read_at(*dataset, 5) == pattern(3072, 7));
    CHECK_THAT(dataset->describe(5), Catch::Contains("data_batch_3.bin[1]"));
  }
  check_open_error(config, {"test_batch.bin", "cifar-10-binary.tar.gz"}, Split::test);
  const fs::path third = folder.path() / "cifar-10-batches-bin/data_batch_3.bin";
  put(third, Bytes(5000, 1));
  check_open_error(config, {third.string(), "truncated", "expected 6146 bytes", "found 5000"});
  put(third, {});
  check_open_error(config, {third.string(), "truncated", "found 0"});
  put(third, cifar_record({10}, 1));
  check_open_error(config, {"data_batch_3.bin[0]", "10 classes"});
  fs::remove(third);
  check_open_error(config, {third.string()});
}

TEST_CASE("CIFAR-100 takes the fine label") {
  const ScratchFolder folder;
  Bytes bytes = cifar_record({3, 77}, 1);
  const Bytes second = cifar_record({4, 99}, 2);
  bytes.insert(bytes.end(), second.begin(), second.end());
  put(folder.path() / "train.bin", bytes);
  put(folder.path() / "test.bin", cifar_record({0, 5}, 3));
  const auto config = config_of("cifar100", folder.path(), {32}, 3);
  const auto train = open_dataset(config, Split::train), test = open_dataset(config, Split::test);
  CHECK(train->num_classes() == 100);
  const std::vector<std::string> names = train->class_names();
  CHECK(std::set<std::string>(names.begin(), names.end()).size() == 100);
  CHECK(std::is_sorted(names.begin(), names.end()));
  CHECK(train->label(0) == 77);
  CHECK(train->label(1) == 99);
  CHECK(read_at(*train, 1) == pattern(3072, 2));
  CHECK(test->size() == 1);
  CHECK(test->label(0) == 5);
}

TEST_CASE("content_hash follows the pixels, not the files") {
  const ScratchFolder plain, packed;
  IdxFiles files;
  files.write(plain.path(), false);
  files.write(packed.path(), true);
  const auto hash = [](const fs::path& folder, std::int64_t limit = 0) {
    return content_hash(*open_dataset(config_of("idx", folder, {4, 5}, 1), Split::train), limit);
  };
  const std::string all = hash(plain.path());
  CHECK(all == hash(packed.path()));
  CHECK(all == hash(packed.path(), 6));
  CHECK(all != hash(packed.path(), 5));
  files.images.back() ^= 1;
  files.write(plain.path(), false);
  CHECK(all != hash(plain.path()));
  CHECK(hash(plain.path(), 5) == hash(packed.path(), 5));
}

TEST_CASE("Fashion-MNIST itself") {
  DataConfig config;
  config.num_classes = 10;
  if (!fs::exists("/usr/share/datasets/fashion-mnist")) {
    WARN("skipped: Debian's package dataset-fashion-mnist is not installed");
    return;
  }
  for (const auto& [split, size] : {std::pair{Split::train, 60000}, std::pair{Split::test, 10000}}) {
    const auto dataset = open_dataset(config, split);
    CHECK(dataset->size() == size);
    CHECK(dataset->height() == 28);
    CHECK(dataset->class_names().at(9) == "Ankle boot");
    std::vector<std::int64_t> counts(10);
    for (std::int64_t i = 0; i < dataset->size(); ++i) ++counts.at(static_cast<std::size_t>(dataset->label(i)));
    CHECK(counts == std::vector<std::int64_t>(10, size / 10));
  }
}
