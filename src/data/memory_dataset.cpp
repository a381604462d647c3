#include "data/memory_dataset.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "data/image_io.h"

namespace uvit {
namespace {

class MemoryDataset : public Dataset {
 public:
  explicit MemoryDataset(RawImages images) : images_(std::move(images)) {}
  std::int64_t size() const override { return static_cast<std::int64_t>(images_.labels.size()); }
  std::int64_t channels() const override { return images_.channels; }
  std::int64_t height() const override { return images_.height; }
  std::int64_t width() const override { return images_.width; }
  std::int64_t num_classes() const override { return images_.num_classes; }
  std::vector<std::string> class_names() const override { return images_.class_names; }
  std::int64_t label(std::int64_t index) const override { return images_.labels.at(static_cast<std::size_t>(index)); }
  std::string describe(std::int64_t index) const override { return images_.describe(index); }
  void read(std::int64_t index, std::span<std::uint8_t> pixels) const override {
    const auto* source = images_.pixels.data() + index * static_cast<std::int64_t>(pixels.size());
    std::copy(source, source + pixels.size(), pixels.begin());
  }

 private:
  RawImages images_;
};

RawImages converted(RawImages raw, const DataConfig& config) {
  if (raw.channels == config.channels && raw.height == config.height() && raw.width == config.width()) return raw;
  const std::int64_t stored = raw.channels * raw.height * raw.width;
  std::vector<std::uint8_t> pixels;
  pixels.reserve(raw.labels.size() * static_cast<std::size_t>(config.channels * config.height() * config.width()));
  for (std::size_t i = 0; i < raw.labels.size(); ++i) {
    const auto begin = raw.pixels.begin() + static_cast<std::int64_t>(i) * stored;
    const Image image = resize_and_center_crop(convert_channels({raw.channels, raw.height, raw.width, {begin, begin + stored}}, config.channels),
                                               config.height(), config.width());
    pixels.insert(pixels.end(), image.pixels.begin(), image.pixels.end());
  }
  raw.pixels = std::move(pixels);
  raw.channels = config.channels;
  raw.height = config.height();
  raw.width = config.width();
  return raw;
}

}  // namespace

std::unique_ptr<Dataset> make_memory_dataset(RawImages raw, const DataConfig& config) {
  if (config.limit > 0 && static_cast<std::size_t>(config.limit) < raw.labels.size()) {
    raw.labels.resize(static_cast<std::size_t>(config.limit));
    raw.pixels.resize(raw.labels.size() * static_cast<std::size_t>(raw.channels * raw.height * raw.width));
  }
  if (raw.labels.empty()) throw Error(fmt::format("dataset {} holds no images", config.dataset));
  if (raw.height < config.height() || raw.width < config.width()) {
    throw Error(
        fmt::format("data.image_size asks for {} x {} pixels, but {} and all images of {} have {} x {} (height x width); images are never enlarged",
                    config.height(), config.width(), raw.describe(0), config.dataset, raw.height, raw.width));
  }
  for (std::size_t i = 0; i < raw.labels.size(); ++i) {
    if (raw.labels[i] >= raw.num_classes) {
      throw Error(fmt::format("the label of {} is {}, but there are only {} classes (0 to {})", raw.describe(static_cast<std::int64_t>(i)),
                              raw.labels[i], raw.num_classes, raw.num_classes - 1));
    }
  }
  return std::make_unique<MemoryDataset>(converted(std::move(raw), config));
}

}  // namespace uvit
