#include <torch/torch.h>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <span>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/name_table.h"
#include "core/progress.h"
#include "data/dataset.h"
#include "data/image_folder.h"
#include "data/image_io.h"
#include "metrics/score.h"

namespace uvit {
namespace {

namespace fs = std::filesystem;

std::string hash_of(const FeatureStatistics& statistics) {
  std::string bytes;
  for (const at::Tensor& tensor : {statistics.mu, statistics.sigma}) {
    const at::Tensor values = tensor.to(at::kDouble).contiguous();
    bytes.append(static_cast<const char*>(values.const_data_ptr()), values.nbytes());
  }
  return sha256(std::as_bytes(std::span(bytes)));
}

Reference make_reference(FeatureStatistics statistics, const std::string& name) {
  std::string hash = hash_of(statistics);
  return {std::move(statistics), name, std::move(hash)};
}

FeatureStatistics compute(const FeatureNetworkRow& row, FeatureNetwork& network, const std::string& name, std::int64_t count,
                          const std::function<Image(std::int64_t)>& image) {
  Progress progress("features of " + name, count, "images");
  FeatureStatistics statistics = feature_statistics(collect_features(network, count, image, [&](std::int64_t done) { progress.update(done); }));
  statistics.network = row.name;
  statistics.weights_hash = network.weights_hash();
  return statistics;
}

fs::path cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache && *cache) return fs::path(cache) / "uvit";
  const char* home = std::getenv("HOME");
  return home && *home ? fs::path(home) / ".cache/uvit" : fs::path();
}

// Statistics stored at `path`, if they are of this network and these pixels.
std::optional<FeatureStatistics> stored_statistics(const fs::path& path, const FeatureNetworkRow& row, const FeatureNetwork& network,
                                                   const std::string& dataset_hash) {
  if (!fs::exists(path)) return std::nullopt;
  try {
    FeatureStatistics found = read_statistics(path);
    if (found.network == row.name && found.weights_hash == network.weights_hash() && found.dataset_hash == dataset_hash) return found;
  } catch (const Error& e) {
    spdlog::warn("computing reference statistics anew: {}", e.what());
  }
  return std::nullopt;
}

std::optional<fs::path> shipped_statistics(const FeatureNetworkRow& row, const std::string& dataset, Split split) {
  std::string name = fmt::format("{}_{}_{}.npz", row.name, dataset, split == Split::train ? "train" : "test");
  std::replace(name.begin(), name.end(), '-', '_');
  try {
    return asset_path(name);
  } catch (const Error&) {
    return std::nullopt;  // most pairs of network and dataset have none
  }
}

Image image_of(const Dataset& dataset, std::int64_t index) {
  Image image{dataset.channels(), dataset.height(), dataset.width(), {}};
  image.pixels.resize(static_cast<std::size_t>(image.channels * image.height * image.width));
  dataset.read(index, image.pixels);
  return image;
}

Reference dataset_reference(const DatasetRow& dataset_row, Split split, const FeatureNetworkRow& row, FeatureNetwork& network, std::int64_t limit,
                            const DataConfig& data) {
  DataConfig config = data;
  config.limit = limit;
  config.num_classes = 0;
  if (data.dataset != dataset_row.name) {
    config.dataset = dataset_row.name;
    if (!data.dataset.empty()) config.path.clear();
    if (dataset_row.native_size > 0) {
      config.image_size = {dataset_row.native_size};
      config.channels = dataset_row.native_channels;
    }
  }
  const std::string name = fmt::format("{}:{}", dataset_row.name, split == Split::train ? "train" : "test");
  const std::unique_ptr<Dataset> dataset = open_dataset(config, split);
  const std::string hash = content_hash(*dataset);
  if (const auto shipped = shipped_statistics(row, dataset_row.name, split)) {
    if (auto found = stored_statistics(*shipped, row, network, hash)) return make_reference(std::move(*found), name);
  }
  const fs::path folder = cache_folder();
  const std::string key = fmt::format("{} {} {}", row.name, network.weights_hash(), hash);
  const fs::path cached = folder / fmt::format("{}_{}.npz", row.name, sha256(std::as_bytes(std::span(key))).substr(0, 32));
  if (!folder.empty()) {
    if (auto found = stored_statistics(cached, row, network, hash)) return make_reference(std::move(*found), name);
  }
  FeatureStatistics statistics = compute(row, network, name, dataset->size(), [&](std::int64_t i) { return image_of(*dataset, i); });
  statistics.dataset_hash = hash;
  try {
    if (!folder.empty()) {
      make_directories(folder);
      write_statistics(cached, statistics);
    }
  } catch (const Error& e) {
    spdlog::warn("reference statistics are not cached: {}", e.what());
  }
  return make_reference(std::move(statistics), name);
}

Reference folder_reference(const std::string& spec, const FeatureNetworkRow& row, FeatureNetwork& network, std::int64_t limit) {
  std::vector<fs::path> files = list_images(spec);
  if (limit > 0 && files.size() > static_cast<std::size_t>(limit)) files.resize(static_cast<std::size_t>(limit));
  if (files.size() < 2)
    throw Error(fmt::format("folder {} holds {} image(s) (.jpg .jpeg .png .webp .bmp); a score needs at least 2", spec, files.size()));
  const auto read = [&](std::int64_t i) { return read_image(files[static_cast<std::size_t>(i)], row.channels); };
  return make_reference(compute(row, network, spec, static_cast<std::int64_t>(files.size()), read), spec);
}

Reference npz_reference(const std::string& spec, const FeatureNetworkRow& row, const FeatureNetwork& network) {
  FeatureStatistics statistics = read_statistics(spec);
  const bool other_network = !statistics.network.empty() && statistics.network != row.name;
  const bool other_weights = !statistics.weights_hash.empty() && statistics.weights_hash != network.weights_hash();
  if (other_network || other_weights) {
    throw Error(fmt::format("{} holds statistics of network {} with weights {:.12}, not of {} with weights {:.12}", spec, statistics.network,
                            statistics.weights_hash, row.name, network.weights_hash()));
  }
  return make_reference(std::move(statistics), spec);
}

}  // namespace

Reference load_reference(const std::string& spec, const FeatureNetworkRow& row, FeatureNetwork& network, std::int64_t limit, const DataConfig& data) {
  const std::string name = spec.substr(0, spec.find(':'));
  std::vector<std::string> names;
  for (const DatasetRow& dataset : dataset_table()) {
    names.push_back(dataset.name);
    if (dataset.name != name) continue;
    const std::string split = spec.size() > name.size() ? spec.substr(name.size() + 1) : "train";
    if (split != "train" && split != "test")
      throw Error(fmt::format("'{}' names split '{}' of dataset {}: there are train and test", spec, split, name));
    return dataset_reference(dataset, split == "train" ? Split::train : Split::test, row, network, limit, data);
  }
  if (fs::is_directory(spec)) return folder_reference(spec, row, network, limit);
  if (fs::exists(spec)) return npz_reference(spec, row, network);
  const std::string nearest = nearest_name(name, names);
  throw Error(fmt::format("'{}' is no folder, no .npz file and no dataset{}: the datasets are {}", spec,
                          nearest.empty() ? "" : fmt::format(" (did you mean '{}'?)", nearest), fmt::join(names, ", ")));
}

}  // namespace uvit
