#include <fmt/format.h>

#include <array>
#include <deque>
#include <map>
#include <mutex>

#include "core/error.h"
#include "core/hash.h"
#include "data/datasets.h"
#include "data/encoded_image.h"
#include "data/file_list.h"
#include "data/shard_index.h"
#include "io/file_descriptor.h"
#include "io/tar.h"

namespace uvit {
namespace {

/// The files of the shards, opened when they are first read; a process may not hold as many open as there can be shards.
class OpenShards {
 public:
  explicit OpenShards(const std::vector<Shard>& shards) : shards_(shards) {}

  std::shared_ptr<const InputFile> get(std::uint32_t number) {
    constexpr std::size_t kMostOpen = 256;
    const std::lock_guard lock(mutex_);
    std::shared_ptr<const InputFile>& file = open_[number];
    if (!file) {
      try {
        file = std::make_shared<InputFile>(shards_.at(number).path);
      } catch (const Error&) {
        open_.erase(number);
        throw;
      }
      order_.push_back(number);
    }
    const std::shared_ptr<const InputFile> result = file;
    if (order_.size() > kMostOpen) {
      open_.erase(order_.front());
      order_.pop_front();
    }
    return result;
  }

 private:
  const std::vector<Shard>& shards_;
  std::mutex mutex_;
  std::map<std::uint32_t, std::shared_ptr<const InputFile>> open_;
  std::deque<std::uint32_t> order_;  // oldest first
};

/// An image's bytes with the tar header before them, read in one go.
struct Member {
  std::vector<std::byte> block;
  std::span<const std::byte> bytes() const { return std::span(block).subspan(kTarBlock); }
  std::string name() const { return tar_member_name(std::span(block).first(kTarBlock)); }
};

class ShardDataset : public Dataset, public EncodedImages {
 public:
  ShardDataset(ShardIndex index, const DataConfig& config) : index_(std::move(index)), config_(config), files_(index_.shards) {
    if (config.limit > 0 && size() > config.limit) index_.samples.resize(static_cast<std::size_t>(config.limit));
  }
  std::int64_t size() const override { return static_cast<std::int64_t>(index_.samples.size()); }
  std::int64_t channels() const override { return config_.channels; }
  std::int64_t height() const override { return config_.height(); }
  std::int64_t width() const override { return config_.width(); }
  std::int64_t num_classes() const override { return index_.num_classes; }
  std::vector<std::string> class_names() const override { return index_.class_names; }
  std::int64_t label(std::int64_t index) const override { return sample(index).label; }
  std::string describe(std::int64_t index) const override {
    return fmt::format("{}[{}]", index_.shards.at(sample(index).shard).path.string(), index - first_of_shard(sample(index).shard));
  }
  void read(std::int64_t index, std::span<std::uint8_t> pixels) const override {
    decode_fitted(read_member(index).bytes(), config_.channels, config_.height(), config_.width(), describe(index), pixels, config_.jpeg_scaling);
  }
  EncodedImage encoded(std::int64_t index) const override {
    const Member member = read_member(index);
    return {{member.bytes().begin(), member.bytes().end()}, ending_of(member.name()), shard_captions(index_, sample(index))};
  }

 private:
  const ShardSample& sample(std::int64_t index) const { return index_.samples.at(static_cast<std::size_t>(index)); }
  std::int64_t first_of_shard(std::uint32_t shard) const {
    std::uint64_t first = 0;
    for (std::uint32_t i = 0; i < shard; ++i) first += index_.shards[i].count;
    return static_cast<std::int64_t>(first);
  }
  Member read_member(std::int64_t index) const {
    const ShardSample& wanted = sample(index);
    const std::shared_ptr<const InputFile> file = files_.get(wanted.shard);
    Member member;
    member.block.resize(kTarBlock + wanted.size);
    file->read(member.block, wanted.offset - kTarBlock);
    std::string damage = tar_header_damage(std::span(member.block).first(kTarBlock), wanted.size);
    if (!index_.checksums) return member;  // the headers are where the index came from, and pax may give sizes that they do not
    if (damage.empty() && crc32(member.bytes()) != wanted.crc) damage = "its checksum is not that of the index";
    if (!damage.empty())
      throw Error(fmt::format("{} is damaged at byte {}: {}; copy the shard again, or pack again", describe(index), wanted.offset, damage));
    return member;
  }

  ShardIndex index_;
  DataConfig config_;
  mutable OpenShards files_;
};

}  // namespace

std::unique_ptr<Dataset> open_shards(const DataConfig& config, Split split) {
  if (config.path.empty()) throw Error("dataset shards has no default place: set data.path to the folder of the shards");
  ShardIndex index = find_shards(config.path, split == Split::train);
  if (index.samples.empty()) throw Error(fmt::format("the shards at {} hold no image", config.path));
  // Shards without an index do not say how many classes there are, as labels of IDX files do not.
  if (!index.checksums && index.num_classes > 0) index.num_classes = std::max(index.num_classes, config.num_classes);
  return std::make_unique<ShardDataset>(std::move(index), config);
}

}  // namespace uvit
