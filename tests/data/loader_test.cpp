#include "data/loader.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <set>
#include <thread>

#include "core/error.h"
#include "core/random.h"
#include "data_files.h"

using namespace uvit;
using namespace uvit::test;

namespace {

/// Image i is pattern(12, i), 2 x 3 pixels of 2 channels; some can be broken.
class FakeDataset : public Dataset {
 public:
  explicit FakeDataset(std::int64_t size, std::set<std::int64_t> broken = {}) : size_(size), broken_(std::move(broken)) {}
  std::int64_t size() const override { return size_; }
  std::int64_t channels() const override { return 2; }
  std::int64_t height() const override { return 2; }
  std::int64_t width() const override { return 3; }
  std::int64_t num_classes() const override { return 7; }
  std::int64_t label(std::int64_t index) const override { return index % 7; }
  std::string describe(std::int64_t index) const override { return fmt::format("fake[{}]", index); }
  void read(std::int64_t index, std::span<std::uint8_t> pixels) const override {
    ++reads;
    if (broken_.contains(index)) throw Error(fmt::format("cannot read {}", describe(index)));
    const Bytes bytes = pattern(12, static_cast<std::uint32_t>(index));
    std::copy(bytes.begin(), bytes.end(), pixels.begin());
  }
  mutable std::atomic<int> reads = 0;

 private:
  std::int64_t size_;
  std::set<std::int64_t> broken_;
};

/// Without the warnings that name every image left out.
class QuietLog {
 public:
  QuietLog() : before_(spdlog::get_level()) { spdlog::set_level(spdlog::level::off); }
  ~QuietLog() { spdlog::set_level(before_); }

 private:
  spdlog::level::level_enum before_;
};

struct Sample {
  std::int64_t index, label;
  std::vector<float> pixels;
  bool operator==(const Sample&) const = default;
};

/// Global samples first_sample .. + count of a fresh loader.
std::vector<Sample> draw(const Dataset& dataset, const LoaderOptions& options, std::int64_t count) {
  DataLoader loader(dataset, options);
  std::vector<Sample> samples;
  while (static_cast<std::int64_t>(samples.size()) < count) {
    const Batch batch = loader.next();
    CHECK(batch.first_sample == options.first_sample + static_cast<std::int64_t>(samples.size()));
    REQUIRE(batch.indexes.size() == static_cast<std::size_t>(options.batch_size));
    REQUIRE(batch.images.size() == 12 * batch.indexes.size());
    for (std::size_t i = 0; i < batch.indexes.size(); ++i) {
      const auto begin = batch.images.begin() + static_cast<std::ptrdiff_t>(12 * i);
      samples.push_back({batch.indexes[i], batch.labels[i], std::vector<float>(begin, begin + 12)});
    }
  }
  samples.resize(static_cast<std::size_t>(count));
  return samples;
}

LoaderOptions options_with(std::int64_t batch_size, std::int64_t workers, std::int64_t first_sample = 0) {
  LoaderOptions options;
  options.seed = 5;
  options.batch_size = batch_size;
  options.workers = workers;
  options.prefetch = 3;
  options.first_sample = first_sample;
  return options;
}

}  // namespace

TEST_CASE("global sample n is image permutation(seed, n / N)[n % N], scaled to [-1, 1]") {
  const FakeDataset dataset(10);
  const std::vector<Sample> samples = draw(dataset, options_with(4, 1), 33);
  for (std::size_t n = 0; n < samples.size(); ++n) {
    const std::int64_t index = random_permutation(10, 5, n / 10)[n % 10];
    CHECK(samples[n].index == index);
    CHECK(samples[n].label == index % 7);
    const Bytes bytes = pattern(12, static_cast<std::uint32_t>(index));
    for (std::size_t i = 0; i < 12; ++i) CHECK(samples[n].pixels[i] == static_cast<float>(bytes[i] / 127.5 - 1.0));
  }
}

TEST_CASE("a sample depends on the seed and its number alone, whatever workers, batch size, prefetch and start", "[threads]") {
  const QuietLog quiet;
  const FakeDataset dataset(23, {3, 4, 20});
  auto reference_options = options_with(5, 1);
  reference_options.flip = true;
  reference_options.skip_broken = true;
  const std::vector<Sample> reference = draw(dataset, reference_options, 120);
  for (const std::int64_t workers : {1, 2, 5}) {
    for (const std::int64_t batch_size : {1, 7, 40}) {
      for (const std::int64_t first : {0, 1, 22, 50}) {
        auto options = options_with(batch_size, workers, first);
        options.flip = true;
        options.skip_broken = true;
        options.prefetch = workers;
        INFO("workers " << workers << ", batch " << batch_size << ", first " << first);
        CHECK(draw(dataset, options, 120 - first) == std::vector<Sample>(reference.begin() + first, reference.end()));
      }
    }
  }
  auto other = reference_options;
  other.seed = 6;
  CHECK(draw(dataset, other, 120) != reference);
}

TEST_CASE("a flip mirrors every row, for the samples that the flip stream names") {
  const FakeDataset dataset(50);
  auto options = options_with(10, 2);
  const std::vector<Sample> plain = draw(dataset, options, 200);
  options.flip = true;
  const std::vector<Sample> flipped = draw(dataset, options, 200);
  int count = 0;
  for (std::size_t n = 0; n < plain.size(); ++n) {
    std::vector<float> expected = plain[n].pixels;
    if (RandomStream(5, RandomPurpose::flip, n).uniform() < 0.5) {
      ++count;
      for (std::size_t row = 0; row < 12; row += 3) std::swap(expected[row], expected[row + 2]);
    }
    CHECK(flipped[n].pixels == expected);
  }
  CHECK(count > 70);
  CHECK(count < 130);
}

TEST_CASE("a broken image ends the run by name, at its own batch and again afterwards", "[threads]") {
  const std::vector<std::int64_t> order = random_permutation(12, 5, 0);
  const FakeDataset dataset(12, {order[7]});
  for (const std::int64_t workers : {1, 3}) {
    DataLoader loader(dataset, options_with(3, workers));
    loader.next();
    loader.next();
    for (int i = 0; i < 2; ++i) check_error([&] { loader.next(); }, {fmt::format("fake[{}]", order[7])});
  }
}

TEST_CASE("a broken image that may be skipped gives its place to the next of the order, and is counted once", "[threads]") {
  const QuietLog quiet;
  const std::vector<std::int64_t> order = random_permutation(12, 5, 0);
  const FakeDataset dataset(12, {order[3], order[4], order[11]});
  auto options = options_with(6, 2);
  options.skip_broken = true;
  const std::vector<Sample> samples = draw(dataset, options, 12);
  CHECK(samples[3].index == order[5]);
  CHECK(samples[4].index == order[5]);
  CHECK(samples[5].index == order[5]);
  CHECK(samples[11].index == order[0]);
  for (const std::size_t n : {0, 1, 2, 6, 7, 8, 9, 10}) CHECK(samples[n].index == order[n]);
  DataLoader loader(dataset, options);
  CHECK(loader.skipped() == 0);
  loader.next();
  CHECK(loader.skipped() == 2);
  for (int i = 0; i < 9; ++i) loader.next();
  CHECK(loader.skipped() == 3);
}

TEST_CASE("a dataset in which nothing can be read is an error, not an endless search", "[threads]") {
  const QuietLog quiet;
  const FakeDataset dataset(3, {0, 1, 2});
  auto options = options_with(2, 2);
  options.skip_broken = true;
  DataLoader loader(dataset, options);
  check_error([&] { loader.next(); }, {"none of the 3 images", "fake["});
}

TEST_CASE("workers run ahead by the prefetch and no further, and stop when the loader goes", "[threads]") {
  const FakeDataset dataset(1000);
  auto options = options_with(4, 2);
  options.prefetch = 3;
  {
    DataLoader loader(dataset, options);
    for (int i = 0; i < 500 && dataset.reads < 12; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK(dataset.reads == 12);
    loader.next();
    for (int i = 0; i < 500 && dataset.reads < 16; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK(dataset.reads == 16);
  }
  const int after = dataset.reads;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(dataset.reads == after);
}

TEST_CASE("a loader refuses an empty dataset and an empty batch") {
  check_error([] { DataLoader(FakeDataset(0), options_with(2, 1)); }, {"at least one image"});
  const FakeDataset dataset(3);
  check_error([&] { DataLoader(dataset, options_with(0, 1)); }, {"batch size"});
}
