#include "data/latent_index.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/error.h"
#include "io/json_field.h"

namespace uvit {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr int kFormat = 1;

Json read_json(const fs::path& path) {
  const Json json = Json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw Error(fmt::format("{} is damaged: it is no JSON object; encode again", path.string()));
  if (value_or(json, "format", 0) != kFormat) throw Error(fmt::format("{} has another format than {}: encode again", path.string(), kFormat));
  return json;
}

/// Runs `read`, which takes fields out of a JSON object, and turns what it throws into an Error.
template <class Read>
auto read_fields(const fs::path& path, Read&& read) {
  try {
    return read(read_json(path));
  } catch (const Json::exception& error) {
    throw Error(fmt::format("{} is damaged: {}; encode again", path.string(), error.what()));
  }
}

}  // namespace

LatentIndex read_latent_index(const fs::path& split_folder) {
  const fs::path path = split_folder / "latents.json";
  if (!fs::is_regular_file(path)) throw Error(fmt::format("{} holds no latents: make them with `uvit encode`", split_folder.string()));
  LatentIndex index = read_fields(path, [](const Json& json) {
    LatentIndex i;
    i.count = integer_at(json, "count");
    i.shard_size = integer_at(json, "shard_size");
    i.channels = integer_at(json, "channels");
    i.height = integer_at(json, "height");
    i.width = integer_at(json, "width");
    i.scale_factor = json.at("scale_factor");
    i.flips = json.at("flips");
    i.autoencoder = json.at("autoencoder");
    i.source = json.at("source");
    i.num_classes = integer_at(json, "num_classes");
    i.class_names = json.at("class_names").get<std::vector<std::string>>();
    i.mean = json.at("mean").get<std::vector<double>>();
    i.std = json.at("std").get<std::vector<double>>();
    return i;
  });
  constexpr std::int64_t kLargest = std::int64_t{1} << 40;
  for (const std::int64_t value : {index.count, index.shard_size, index.channels, index.height, index.width})
    if (value < 1 || value > kLargest) throw Error(fmt::format("{} is damaged: a size is {}; encode again", path.string(), value));
  return index;
}

void write_latent_index(const fs::path& split_folder, const LatentIndex& index) {
  Json json;
  json["format"] = kFormat;
  json["count"] = index.count;
  json["shard_size"] = index.shard_size;
  json["channels"] = index.channels;
  json["height"] = index.height;
  json["width"] = index.width;
  json["scale_factor"] = index.scale_factor;
  json["flips"] = index.flips;
  json["autoencoder"] = index.autoencoder;
  json["source"] = index.source;
  json["num_classes"] = index.num_classes;
  json["class_names"] = index.class_names;
  json["mean"] = index.mean;
  json["std"] = index.std;
  write_file(split_folder / "latents.json", std::string_view(json.dump(1) + "\n"));
}

std::optional<CaptionIndex> read_caption_index(const fs::path& split_folder) {
  const fs::path path = split_folder / "captions.json";
  if (!fs::is_regular_file(path)) return std::nullopt;
  const CaptionIndex index = read_fields(path, [](const Json& json) {
    return CaptionIndex{integer_at(json, "count"), integer_at(json, "shard_size"), integer_at(json, "tokens"), integer_at(json, "dim"), json.at("text_encoder")};
  });
  for (const std::int64_t value : {index.count, index.shard_size, index.tokens, index.dim})
    if (value < 1) throw Error(fmt::format("{} is damaged: a size is {}; encode again", path.string(), value));
  return index;
}

void write_caption_index(const fs::path& split_folder, const CaptionIndex& index) {
  Json json;
  json["format"] = kFormat;
  json["count"] = index.count;
  json["shard_size"] = index.shard_size;
  json["tokens"] = index.tokens;
  json["dim"] = index.dim;
  json["text_encoder"] = index.text_encoder;
  write_file(split_folder / "captions.json", std::string_view(json.dump(1) + "\n"));
}

fs::path shard_path(const fs::path& split_folder, const std::string& kind, std::int64_t shard) {
  return split_folder / fmt::format("{}-{:05}.safetensors", kind, shard);
}

fs::path split_folder(const fs::path& dir, bool train) { return dir / (train ? "train" : "test"); }

}  // namespace uvit
