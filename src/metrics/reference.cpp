#include <torch/torch.h>

#include "metrics/reference.h"

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
#include "io/npz.h"

namespace uvit {
namespace {

namespace fs = std::filesystem;

std::string hash_of(const FeatureSet& set) {
  std::string bytes;
  const auto add = [&bytes](const at::Tensor& tensor) {
    const at::Tensor values = tensor.contiguous();
    bytes.append(static_cast<const char*>(values.const_data_ptr()), values.nbytes());
  };
  for (const auto& [kind, statistics] : set.moments) {
    add(statistics.mu.to(at::kDouble));
    add(statistics.sigma.to(at::kDouble));
  }
  if (set.moments.empty()) {
    for (const auto& [kind, rows] : set.rows) add(rows);
  }
  return sha256(std::as_bytes(std::span(bytes)));
}

Reference make_reference(FeatureSet set, const std::string& name, ImageSource images = {}) {
  std::string hash = hash_of(set);
  return {std::move(set), name, std::move(hash), std::move(images)};
}

FeatureSet set_of(FeatureStatistics statistics) {
  FeatureSet set;
  set.num_images = statistics.num_images;
  set.moments[OutputKind::features] = std::move(statistics);
  return set;
}

FeatureSet compute(FeatureNetwork& network, const std::string& name, const ImageSource& source, const Wanted& wanted) {
  Progress progress("features of " + name, source.count, "images");
  FeatureSet set = collect_features(network, source, wanted, [&](std::int64_t done) { progress.update(done); });
  std::set<std::pair<std::int64_t, std::int64_t>> sides;
  for (const ImageShape& shape : set.shapes) sides.insert({shape[1], shape[2]});
  if (sides.size() > 1) {
    spdlog::warn("{} holds images of {} sizes, {}: each is resized on its own, which shifts features where others were not", name, sides.size(),
                 describe_shapes(set.shapes));
  }
  return set;
}

// Only these are stored: whatever else is wanted needs the images.
bool first_moments_alone(const Wanted& wanted) {
  return wanted.output.empty() && wanted.rows.empty() && wanted.moments == std::set<OutputKind>{OutputKind::features};
}

fs::path cache_folder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache && *cache) return fs::path(cache) / "uvit";
  const char* home = std::getenv("HOME");
  return home && *home ? fs::path(home) / ".cache/uvit" : fs::path();
}

// Statistics stored at `path`, if they are of this network and these pixels. Shipped ones say nothing of the preparation, which that network fixes.
std::optional<FeatureStatistics> stored_statistics(const fs::path& path, const FeatureNetwork& network, const std::string& dataset_hash) {
  if (!fs::exists(path)) return std::nullopt;
  try {
    FeatureStatistics found = read_statistics(path);
    const bool prepared_alike = found.preprocess.empty() || found.preprocess == network.preprocess();
    if (found.network == network.name() && found.weights_hash == network.weights_hash() && prepared_alike && found.dataset_hash == dataset_hash) return found;
  } catch (const Error& e) {
    spdlog::warn("computing reference statistics anew: {}", e.what());
  }
  return std::nullopt;
}

std::optional<fs::path> shipped_statistics(const FeatureNetwork& network, const std::string& dataset, Split split) {
  std::string name = fmt::format("{}_{}_{}.npz", network.name(), dataset, split == Split::train ? "train" : "test");
  std::replace(name.begin(), name.end(), '-', '_');
  try {
    return asset_path(name);
  } catch (const Error&) {
    return std::nullopt;  // most pairs of network and dataset have none
  }
}

// Moments that were shipped or cached for this network and these pixels, else computed and cached.
FeatureSet cached_moments(FeatureNetwork& network, const Dataset& dataset, const std::string& name, const std::optional<fs::path>& shipped,
                          const Wanted& wanted) {
  const std::string hash = content_hash(dataset);
  if (shipped) {
    if (auto found = stored_statistics(*shipped, network, hash)) return set_of(std::move(*found));
  }
  const fs::path folder = cache_folder();
  const std::string key = fmt::format("{} {} {} {} {}", network.name(), network.weights_hash(), network.preprocess(), network.precision(), hash);
  std::string file = fmt::format("{}_{}.npz", network.name(), sha256(std::as_bytes(std::span(key))).substr(0, 32));
  std::replace(file.begin(), file.end(), ':', '_');
  const fs::path cached = folder / file;
  if (!folder.empty()) {
    if (auto found = stored_statistics(cached, network, hash)) return set_of(std::move(*found));
  }
  FeatureSet set = compute(network, name, dataset_source(dataset), wanted);
  set.moments.at(OutputKind::features).dataset_hash = hash;
  try {
    if (!folder.empty()) {
      make_directories(folder);
      write_statistics(cached, set.moments.at(OutputKind::features));
    }
  } catch (const Error& e) {
    spdlog::warn("reference statistics are not cached: {}", e.what());
  }
  return set;
}

Reference dataset_reference(const DatasetRow& dataset_row, Split split, FeatureNetwork& network, const Wanted& wanted, std::int64_t limit,
                            const DataConfig& data) {
  DataConfig config = data;
  config.limit = limit;
  config.num_classes = 0;
  config.jpeg_scaling = false;  // of the model's training alone
  if (data.dataset != dataset_row.name) {
    config.dataset = dataset_row.name;
    if (!data.dataset.empty()) config.path.clear();
    if (dataset_row.native_size > 0) {
      config.image_size = {dataset_row.native_size};
      config.channels = dataset_row.native_channels;
    }
  }
  const std::string name = fmt::format("{}:{}", dataset_row.name, split == Split::train ? "train" : "test");
  const std::shared_ptr<const Dataset> dataset = open_dataset(config, split);
  if (dataset->latent()) throw Error(fmt::format("{} holds latents, not images: name the images themselves as the reference", name));
  const ImageSource source = dataset_source(dataset);
  if (!first_moments_alone(wanted)) return make_reference(compute(network, name, source, wanted), name, source);
  FeatureSet set = cached_moments(network, *dataset, name, shipped_statistics(network, dataset_row.name, split), wanted);
  set.shapes = {{dataset->channels(), dataset->height(), dataset->width()}};
  return make_reference(std::move(set), name, source);
}

Reference image_reference(const std::string& spec, ImageSource source, FeatureNetwork& network, const Wanted& wanted) {
  if (source.count < 2)
    throw Error(fmt::format("{} holds {} image(s); a score needs at least 2 (a folder's are .jpg .jpeg .png .webp .bmp)", spec, source.count));
  FeatureSet set = compute(network, spec, source, wanted);
  return make_reference(std::move(set), spec, std::move(source));
}

Reference statistics_reference(const std::string& spec, const FeatureNetwork& network, const Wanted& wanted) {
  FeatureStatistics statistics = read_statistics(spec);
  if (!first_moments_alone(wanted)) throw Error(fmt::format("{} holds mean and covariance alone; what is asked for needs the images", spec));
  const bool other_network = !statistics.network.empty() && statistics.network != network.name();
  const bool other_weights = !statistics.weights_hash.empty() && statistics.weights_hash != network.weights_hash();
  if (other_network || other_weights) {
    throw Error(fmt::format("{} holds statistics of network {} with weights {:.12}, not of {} with weights {:.12}", spec, statistics.network,
                            statistics.weights_hash, network.name(), network.weights_hash()));
  }
  if (!statistics.preprocess.empty() && statistics.preprocess != network.preprocess())
    throw Error(fmt::format("{} holds statistics of images prepared by '{}', not by '{}'", spec, statistics.preprocess, network.preprocess()));
  if (statistics.network.empty()) {
    spdlog::warn("{} does not say which network, weights and resize its statistics are of: the score means something only if they are {}, {}", spec,
                 network.name(), network.preprocess());
  }
  return make_reference(set_of(std::move(statistics)), spec);
}

}  // namespace

Reference load_reference(const std::string& spec, FeatureNetwork& network, const Wanted& wanted, std::int64_t limit, const DataConfig& data) {
  const std::string name = spec.substr(0, spec.find(':'));
  std::vector<std::string> names;
  for (const DatasetRow& dataset : dataset_table()) {
    names.push_back(dataset.name);
    if (dataset.name != name) continue;
    const std::string split = spec.size() > name.size() ? spec.substr(name.size() + 1) : "train";
    if (split != "train" && split != "test")
      throw Error(fmt::format("'{}' names split '{}' of dataset {}: there are train and test", spec, split, name));
    return dataset_reference(dataset, split == "train" ? Split::train : Split::test, network, wanted, limit, data);
  }
  if (fs::is_directory(spec)) return image_reference(spec, folder_source(spec, network.channels(), limit), network, wanted);
  if (fs::exists(spec)) {
    const TensorFile file = read_npz(spec);
    return file.find("arr_0") ? image_reference(spec, npz_source(file, spec, limit), network, wanted) : statistics_reference(spec, network, wanted);
  }
  const std::string nearest = nearest_name(name, names);
  throw Error(fmt::format("'{}' is no folder, no .npz file and no dataset{}: the datasets are {}", spec,
                          nearest.empty() ? "" : fmt::format(" (did you mean '{}'?)", nearest), fmt::join(names, ", ")));
}

Recipe comparison_recipe(const FeatureSet& generated, const Reference& reference) {
  const auto images = [](const FeatureSet& side) { return side.num_images > 0 ? std::to_string(side.num_images) : "unknown"; };
  return {{"num_images", images(generated)},
          {"image_size", describe_shapes(generated.shapes)},
          {"reference", reference.name},
          {"reference_image_size", describe_shapes(reference.set.shapes)},
          {"reference_images", images(reference.set)},
          {"reference_hash", reference.hash}};
}

}  // namespace uvit
