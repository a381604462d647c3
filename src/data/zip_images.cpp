#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "data/datasets.h"
#include "data/encoded_image.h"
#include "data/file_list.h"
#include "data/image_folder.h"
#include "io/zip_archive.h"

namespace uvit {
namespace {

/// Images of a zip archive, sorted by name; dataset.json holds {"labels": [["00000/img00000000.png", 6], ...]}, or null without classes.
class ZipDataset : public Dataset, public EncodedImages {
 public:
  explicit ZipDataset(const DataConfig& config) : config_(config), zip_(config.path) {
    for (const std::string& name : zip_.names())
      if (is_image_name(name)) names_.push_back(name);
    std::sort(names_.begin(), names_.end());
    if (names_.empty()) throw Error("it holds no image");
    if (zip_.contains("dataset.json")) read_labels();
    if (config.limit > 0 && size() > config.limit) names_.resize(static_cast<std::size_t>(config.limit));
  }
  std::int64_t size() const override { return static_cast<std::int64_t>(names_.size()); }
  std::int64_t channels() const override { return config_.channels; }
  std::int64_t height() const override { return config_.height(); }
  std::int64_t width() const override { return config_.width(); }
  std::int64_t num_classes() const override { return list_.num_classes; }
  std::vector<std::string> class_names() const override { return list_.class_names; }
  std::int64_t label(std::int64_t index) const override { return list_.labels.empty() ? 0 : list_.labels.at(static_cast<std::size_t>(index)); }
  std::string describe(std::int64_t index) const override { return fmt::format("{}[{}]", config_.path, names_.at(static_cast<std::size_t>(index))); }
  void read(std::int64_t index, std::span<std::uint8_t> pixels) const override {
    decode_fitted(member(index), config_.channels, config_.height(), config_.width(), describe(index), pixels, config_.jpeg_scaling);
  }
  EncodedImage encoded(std::int64_t index) const override { return {member(index), ending_of(names_.at(static_cast<std::size_t>(index))), {}}; }

 private:
  std::vector<std::byte> member(std::int64_t index) const {
    try {
      const std::lock_guard lock(mutex_);  // an archive has one position
      return zip_.read(names_.at(static_cast<std::size_t>(index)));
    } catch (const Error& error) {
      throw Error(fmt::format("cannot read {}: {}", describe(index), error.what()));
    }
  }
  void read_labels() {
    const std::vector<std::byte> bytes = zip_.read("dataset.json");
    const auto* text = reinterpret_cast<const char*>(bytes.data());
    const auto json = nlohmann::json::parse(text, text + bytes.size(), nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) throw Error("its dataset.json is no JSON object");
    if (!json.contains("labels") || json["labels"].is_null()) return;
    std::map<std::string, std::string> classes;
    for (const auto& entry : json["labels"]) {
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string()) throw Error("its dataset.json has a label that is no [FILE, CLASS]");
      classes[entry[0].get<std::string>()] = entry[1].is_string() ? entry[1].get<std::string>() : entry[1].dump();
    }
    std::vector<std::string> in_order;
    for (const std::string& name : names_) {
      const auto found = classes.find(name);
      if (found == classes.end()) throw Error(fmt::format("its dataset.json has no class for {}", name));
      in_order.push_back(found->second);
    }
    assign_classes(list_, in_order);
  }

  DataConfig config_;
  ZipReader zip_;
  mutable std::mutex mutex_;
  std::vector<std::string> names_;
  FileList list_;  // classes alone
};

}  // namespace

std::unique_ptr<Dataset> open_zip(const DataConfig& config, Split) {
  if (config.path.empty()) throw Error("dataset zip has no default place: set data.path to the .zip file");
  try {
    return std::make_unique<ZipDataset>(config);
  } catch (const Error& error) {
    throw Error(fmt::format("cannot read {} as a zip of images: {}", config.path, error.what()));
  }
}

}  // namespace uvit
