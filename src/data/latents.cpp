#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/error.h"
#include "data/datasets.h"
#include "data/latent_index.h"
#include "data/posterior.h"
#include "io/safetensors.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

void require(const SafetensorsReader& shard, const fs::path& path, const char* name, DType dtype, const std::vector<std::int64_t>& shape) {
  const HostTensor* tensor = shard.find(name);
  if (!tensor || tensor->dtype != dtype || tensor->shape != shape)
    throw Error(fmt::format("{} is damaged: it should hold '{}' {}; remove it and encode again", path.string(), name, format_shape(shape)));
}

/// The captions of one split, read row by row.
class Captions {
 public:
  Captions(const fs::path& folder, const CaptionIndex& index, std::int64_t images) : index_(index), of_image_(static_cast<std::size_t>(images)) {
    for (std::int64_t first = 0; first < index.count; first += index.shard_size) {
      const fs::path path = shard_path(folder, "captions", first / index.shard_size);
      shards_.emplace_back(path);
      const std::int64_t n = std::min(index.shard_size, index.count - first);
      require(shards_.back(), path, "context", DType::f32, {n, index.tokens, index.dim});
      require(shards_.back(), path, "image", DType::i64, {n});
      const HostTensor captioned = shards_.back().read("image");
      for (std::int64_t i = 0; i < n; ++i) {
        const std::int64_t image = captioned.as<std::int64_t>()[i];
        if (image < 0) throw Error(fmt::format("{} is damaged: a caption belongs to image {}", path.string(), image));
        if (image < images) of_image_[static_cast<std::size_t>(image)].push_back(first + i);  // beyond: data.limit cuts the set
      }
    }
    for (std::size_t i = 0; i < of_image_.size(); ++i)
      if (of_image_[i].empty()) throw Error(fmt::format("image {} of {} has no caption: encode the captions again", i, folder.string()));
    const fs::path empty = folder / "empty_context.safetensors";
    empty_ = read_safetensors(empty).at("context");
    if (empty_.dtype != DType::f32 || empty_.shape != std::vector<std::int64_t>{index.tokens, index.dim})
      throw Error(fmt::format("{} is damaged: its context should be {} x {}", empty.string(), index.tokens, index.dim));
  }
  const CaptionIndex& index() const { return index_; }
  void read(std::int64_t image, const SampleDraw& draw, std::span<float> values) const {
    const std::vector<std::int64_t>& captions = of_image_.at(static_cast<std::size_t>(image));
    const std::int64_t caption = captions[static_cast<std::size_t>(choose_caption(draw, static_cast<std::int64_t>(captions.size())))];
    shards_[static_cast<std::size_t>(caption / index_.shard_size)].read_row("context", caption % index_.shard_size, std::as_writable_bytes(values));
  }
  void read_empty(std::span<float> values) const { std::copy_n(empty_.as<float>(), values.size(), values.begin()); }

 private:
  CaptionIndex index_;
  std::vector<SafetensorsReader> shards_;
  std::vector<std::vector<std::int64_t>> of_image_;
  HostTensor empty_;
};

class LatentDataset : public Dataset {
 public:
  LatentDataset(const DataConfig& config, const fs::path& folder) : folder_(folder), index_(read_latent_index(folder)) {
    check(config);
    size_ = config.limit > 0 ? std::min(config.limit, index_.count) : index_.count;
    const std::vector<std::int64_t> moments = {0, 2 * index_.channels, index_.height, index_.width};
    for (std::int64_t first = 0; first < size_; first += index_.shard_size) {
      const fs::path path = shard_path(folder, "latents", first / index_.shard_size);
      shards_.emplace_back(path);
      std::vector<std::int64_t> shape = moments;
      shape.front() = std::min(index_.shard_size, index_.count - first);
      require(shards_.back(), path, "moments", DType::f32, shape);
      if (index_.flips) require(shards_.back(), path, "moments_flipped", DType::f32, shape);
      require(shards_.back(), path, "labels", DType::i64, {shape.front()});
      const HostTensor labels = shards_.back().read("labels");
      labels_.insert(labels_.end(), labels.as<std::int64_t>(), labels.as<std::int64_t>() + labels.numel());
    }
    if (const auto captions = read_caption_index(folder)) captions_.emplace(folder, *captions, size_);
  }
  std::int64_t size() const override { return size_; }
  std::int64_t channels() const override { return index_.channels; }
  std::int64_t height() const override { return index_.height; }
  std::int64_t width() const override { return index_.width; }
  std::int64_t num_classes() const override { return index_.num_classes; }
  std::vector<std::string> class_names() const override { return index_.class_names; }
  std::int64_t label(std::int64_t index) const override { return labels_.at(static_cast<std::size_t>(index)); }
  std::string describe(std::int64_t index) const override { return fmt::format("{}[{}]", folder_.string(), index); }
  bool latent() const override { return true; }
  std::int64_t context_tokens() const override { return captions_ ? captions_->index().tokens : 0; }
  std::int64_t context_dim() const override { return captions_ ? captions_->index().dim : 0; }

  void read(std::int64_t, std::span<std::uint8_t>) const override {
    throw Error(fmt::format("{} holds latents, no pixels: name the dataset that they were encoded from", folder_.string()));
  }
  void read_values(std::int64_t index, const SampleDraw& draw, std::span<float> values) const override {
    std::vector<float> moments(2 * values.size());
    shards_.at(static_cast<std::size_t>(index / index_.shard_size))
        .read_row(draw.flip ? "moments_flipped" : "moments", index % index_.shard_size, std::as_writable_bytes(std::span(moments)));
    draw_posterior(moments, index_.scale_factor, draw, values);
  }
  void read_context(std::int64_t index, const SampleDraw& draw, std::span<float> values) const override {
    if (!captions_) return Dataset::read_context(index, draw, values);
    captions_->read(index, draw, values);
  }
  void read_empty_context(std::span<float> values) const override {
    if (!captions_) return Dataset::read_empty_context(values);
    captions_->read_empty(values);
  }

 private:
  void check(const DataConfig& config) const {
    if (index_.mean.empty()) throw Error(fmt::format("{} is not encoded to its end: run the same `uvit encode` again", folder_.string()));
    if (std::abs(config.scale_factor - index_.scale_factor) > 1e-9 * index_.scale_factor)
      throw Error(fmt::format("the latents of {} were scaled by {}, and data.scale_factor is {}: set it to that", folder_.string(), index_.scale_factor,
                              config.scale_factor));
    if (config.channels != index_.channels || config.height() != index_.height || config.width() != index_.width)
      throw Error(fmt::format("the latents of {} are {} x {} x {} (channels x height x width): set data.channels and data.image_size to that", folder_.string(),
                              index_.channels, index_.height, index_.width));
    if (config.flip && !index_.flips)
      throw Error(fmt::format("the latents of {} were encoded without their mirrored images: encode with --flip, or set data.flip = false", folder_.string()));
  }

  fs::path folder_;
  LatentIndex index_;
  std::int64_t size_ = 0;
  std::vector<SafetensorsReader> shards_;
  std::vector<std::int64_t> labels_;
  std::optional<Captions> captions_;
};

}  // namespace

std::unique_ptr<Dataset> open_latents(const DataConfig& config, Split split) {
  if (config.path.empty()) throw Error("dataset latents has no default place: set data.path to the folder that `uvit encode` wrote");
  const fs::path folder = split_folder(config.path, split == Split::train);
  if (split == Split::test && !fs::is_directory(folder))
    throw Error(fmt::format("{} has no test split: encode it too, or set train.eval_every = 0", config.path));
  return std::make_unique<LatentDataset>(config, folder);
}

}  // namespace uvit
