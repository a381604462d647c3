#include "data/pack.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/ordered_prefetch.h"
#include "data/encoded_image.h"
#include "data/image_check.h"
#include "data/image_io.h"
#include "data/shard_index.h"
#include "io/tar.h"

namespace uvit {
namespace {

struct Packed {
  EncodedImage image;
  std::string damage;  ///< why the image is left out; "" where it is whole
};

EncodedImage as_png(const Dataset& dataset, std::int64_t index) {
  Image image{dataset.channels(), dataset.height(), dataset.width(), {}};
  image.pixels.resize(static_cast<std::size_t>(image.channels * image.height * image.width));
  dataset.read(index, image.pixels);
  return {encode_png(image), "png", {}};
}

/// The shard that is being written, and the index of all.
class ShardSet {
 public:
  explicit ShardSet(const PackRequest& request) : request_(request) {}

  void add(std::int64_t number, std::optional<std::int64_t> label, const EncodedImage& image) {
    if (image.bytes.size() > std::numeric_limits<std::uint32_t>::max()) throw Error("it has 4 GiB or more");
    if (tar_ && tar_->size() >= request_.shard_bytes) close();
    if (!tar_) open();
    const std::string key = fmt::format("{:09}", number);
    const auto text_bytes = [](const std::string& text) { return std::as_bytes(std::span(text)); };
    ShardSample sample;
    sample.shard = static_cast<std::uint32_t>(index.shards.size() - 1);
    const TarMember file = tar_->add(fmt::format("{}.{}", key, image.ending), image.bytes);
    sample.offset = file.offset;
    sample.size = static_cast<std::uint32_t>(file.size);
    sample.crc = crc32(image.bytes);
    if (label) {
      sample.label = static_cast<std::uint32_t>(*label);
      tar_->add(key + ".cls", text_bytes(fmt::format("{}", *label)));
    }
    if (!image.captions.empty()) {
      const bool one = image.captions.size() == 1;
      const std::string text = one ? image.captions.front() : json_of(image.captions);
      const TarMember caption = tar_->add(key + (one ? ".txt" : ".json"), text_bytes(text));
      sample.caption_offset = caption.offset;
      sample.caption_size = static_cast<std::uint32_t>(caption.size);
    }
    index.samples.push_back(sample);
    ++index.shards.back().count;
  }
  void close() {
    if (!tar_) return;
    tar_->finish();
    Shard& shard = index.shards.back();
    shard.size = tar_->size();
    tar_.reset();
    sync_path(shard.path);
    shard.sha256 = sha256_of_file(shard.path);
  }

  ShardIndex index;

 private:
  void open() {
    const std::filesystem::path path = request_.out / fmt::format("{:05}.tar", index.shards.size());
    index.shards.push_back({path, 0, 0, ""});
    tar_.emplace(path, path);
  }
  static std::string json_of(const std::vector<std::string>& captions) {
    return nlohmann::ordered_json{{"captions", captions}}.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  }

  const PackRequest& request_;
  std::optional<TarWriter> tar_;
};

/// Image `index` as it goes into a shard.
void make_packed(const Dataset& dataset, const PackRequest& request, std::int64_t index, Packed& packed) {
  const auto* files = dynamic_cast<const EncodedImages*>(&dataset);
  try {
    if (files) packed.image = files->encoded(index);
    if (files) packed.damage = image_damage(packed.image.bytes);
    if (!packed.damage.empty()) packed.damage = fmt::format("cannot read image {}: {}", dataset.describe(index), packed.damage);
    if (packed.damage.empty() && (!files || request.pixels)) {
      EncodedImage png = as_png(dataset, index);
      png.captions = std::move(packed.image.captions);
      packed.image = std::move(png);
    }
    if (request.captions)
      for (std::string& caption : request.captions(index)) packed.image.captions.push_back(std::move(caption));
  } catch (const Error& error) {
    packed.damage = error.what();
  }
}

}  // namespace

PackResult pack_dataset(const Dataset& dataset, const PackRequest& request) {
  constexpr std::int64_t kAheadOfEach = 16;
  ShardSet shards(request);
  shards.index.num_classes = dataset.num_classes();
  shards.index.class_names = dataset.class_names();
  shards.index.source = request.source;
  OrderedPrefetch<Packed> images([&](std::int64_t index, Packed& packed) { make_packed(dataset, request, index, packed); },
                                 {request.threads, kAheadOfEach * request.threads, dataset.size()});
  PackResult result;
  for (std::int64_t i = 0; i < dataset.size(); ++i) {
    if (request.stop && request.stop()) throw Error("stopped; nothing was written");
    const auto& [packed, error] = images.front();
    if (error) std::rethrow_exception(error);
    if (packed.damage.empty()) {
      shards.add(i, dataset.num_classes() > 0 ? std::optional(dataset.label(i)) : std::nullopt, packed.image);
      result.captions += static_cast<std::int64_t>(packed.image.captions.size());
    } else if (request.skip_broken) {
      spdlog::warn("left out: {}", packed.damage);
      ++result.skipped;
    } else {
      throw Error(fmt::format("{}; --skip-broken leaves such images out", packed.damage));
    }
    images.pop();
  }
  shards.close();
  if (shards.index.samples.empty()) throw Error("there is no image to pack");
  write_shard_index(request.out, shards.index);
  result.images = static_cast<std::int64_t>(shards.index.samples.size());
  result.shards = static_cast<std::int64_t>(shards.index.shards.size());
  for (const Shard& shard : shards.index.shards) result.bytes += shard.size;
  return result;
}

}  // namespace uvit
