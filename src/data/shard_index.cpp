#include "data/shard_index.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/printable.h"
#include "io/file_descriptor.h"
#include "io/tar.h"

namespace uvit {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr std::uint64_t kFormat = 1;
constexpr std::size_t kRecord = 32;
constexpr std::uint64_t kMostSamples = std::uint64_t{1} << 32;
constexpr std::uint64_t kMostClasses = 1 << 20;

template <class T>
void put_number(std::vector<std::byte>& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<std::byte>(value >> (8 * i)));
}

template <class T>
T take_number(const std::byte*& at) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(std::to_integer<T>(*at++) << (8 * i));
  return value;
}

Error damaged(const fs::path& file, const std::string& what) {
  return Error(fmt::format("{} is damaged: {}; pack again, or remove it to read the shards without it", file.string(), what));
}

/// A number from 0 on; the library would cast any number to any other.
std::uint64_t whole(const Json& json, const char* key) {
  const Json& value = json.at(key);
  if (!value.is_number_unsigned()) throw Error(fmt::format("{} is {}, no whole number", key, printable(value.dump(-1, ' ', false, Json::error_handler_t::replace))));
  return value.get<std::uint64_t>();
}

/// The fields of index.json but the samples. @return the checksum that samples.bin should have, and the number of samples
std::pair<std::uint32_t, std::uint64_t> read_fields(const fs::path& folder, const Json& json, ShardIndex& index) {
  if (whole(json, "format") != kFormat) throw Error(fmt::format("its format is {}, and {} is read", whole(json, "format"), kFormat));
  const std::uint64_t classes = whole(json, "num_classes");
  if (classes > kMostClasses) throw Error(fmt::format("it names {} classes", classes));
  index.num_classes = static_cast<std::int64_t>(classes);
  index.class_names = json.at("class_names").get<std::vector<std::string>>();
  index.source = json.at("source");
  if (!index.class_names.empty() && static_cast<std::int64_t>(index.class_names.size()) != index.num_classes)
    throw Error(fmt::format("it has {} classes and {} names of classes", index.num_classes, index.class_names.size()));
  std::uint64_t count = 0;
  for (const Json& entry : json.at("shards")) {
    const std::string name = entry.at("name");
    if (fs::path(name).filename() != name || name.empty() || name == "..") throw Error(fmt::format("'{}' is no name of a shard", printable(name)));
    index.shards.push_back({folder / name, whole(entry, "size"), whole(entry, "count"), entry.at("sha256").get<std::string>()});
    count += index.shards.back().count;
    if (index.shards.back().count > kMostSamples || count > kMostSamples) throw Error("it names an impossible number of samples");
  }
  return {static_cast<std::uint32_t>(whole(json, "samples_crc32")), count};
}

void read_records(const std::byte* at, ShardIndex& index) {
  for (std::uint32_t shard = 0; shard < index.shards.size(); ++shard) {
    for (std::uint64_t i = 0; i < index.shards[shard].count; ++i) {
      ShardSample sample;
      sample.shard = shard;
      sample.offset = take_number<std::uint64_t>(at);
      sample.caption_offset = take_number<std::uint64_t>(at);
      sample.size = take_number<std::uint32_t>(at);
      sample.crc = take_number<std::uint32_t>(at);
      sample.label = take_number<std::uint32_t>(at);
      sample.caption_size = take_number<std::uint32_t>(at);
      const auto inside = [&](std::uint64_t offset, std::uint64_t size) {
        return offset >= kTarBlock && offset <= index.shards[shard].size && size <= index.shards[shard].size - offset;
      };
      if (!inside(sample.offset, sample.size) || (sample.caption_size > 0 && !inside(sample.caption_offset, sample.caption_size)))
        throw Error(fmt::format("sample {} lies outside its shard", index.samples.size()));
      if (sample.label > 0 && sample.label >= index.num_classes) throw Error(fmt::format("sample {} has class {} of {}", index.samples.size(), sample.label, index.num_classes));
      index.samples.push_back(sample);
    }
  }
}

}  // namespace

void write_shard_index(const fs::path& folder, const ShardIndex& index) {
  std::vector<std::byte> records;
  records.reserve(index.samples.size() * kRecord);
  for (const ShardSample& sample : index.samples) {
    put_number(records, sample.offset);
    put_number(records, sample.caption_offset);
    for (const std::uint32_t value : {sample.size, sample.crc, sample.label, sample.caption_size}) put_number(records, value);
  }
  Json json;
  json["format"] = kFormat;
  json["source"] = index.source;
  json["count"] = index.samples.size();
  json["num_classes"] = index.num_classes;
  json["class_names"] = index.class_names;
  json["samples_crc32"] = crc32(records);
  json["shards"] = Json::array();
  for (const Shard& shard : index.shards)
    json["shards"].push_back({{"name", shard.path.filename().string()}, {"count", shard.count}, {"size", shard.size}, {"sha256", shard.sha256}});
  write_file(folder / "samples.bin", records);
  // Names of classes are names of folders, which need not be UTF-8.
  write_file(folder / "index.json", std::string_view(json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"));
}

ShardIndex parse_shard_index(const fs::path& folder, const std::string& text, std::span<const std::byte> records) {
  const fs::path json_path = folder / "index.json", records_path = folder / "samples.bin";
  ShardIndex index;
  index.checksums = true;
  std::pair<std::uint32_t, std::uint64_t> expected;
  try {
    expected = read_fields(folder, Json::parse(text), index);
  } catch (const Json::exception& error) {
    throw damaged(json_path, printable(error.what()));
  } catch (const Error& error) {
    throw damaged(json_path, error.what());
  }
  if (records.size() != expected.second * kRecord)
    throw damaged(records_path, fmt::format("expected {} bytes ({} samples), found {}", expected.second * kRecord, expected.second, records.size()));
  if (crc32(records) != expected.first) throw damaged(records_path, "its checksum is not that of index.json");
  index.samples.reserve(expected.second);
  try {
    read_records(records.data(), index);
  } catch (const Error& error) {
    throw damaged(records_path, error.what());
  }
  return index;
}

ShardIndex read_shard_index(const fs::path& folder) {
  const std::string json = read_file(folder / "index.json"), records = read_file(folder / "samples.bin");
  ShardIndex index = parse_shard_index(folder, json, std::as_bytes(std::span(records)));
  for (const Shard& shard : index.shards) {
    std::error_code no_name;  // one that is too long, say
    if (!fs::is_regular_file(shard.path, no_name))
      throw Error(fmt::format("shard {} is missing, of the {} that index.json names: copy it again, or pack again", shard.path.string(), index.shards.size()));
    const std::uint64_t found = fs::file_size(shard.path);
    if (found == shard.size) continue;
    throw Error(fmt::format("shard {} {}: expected {} bytes, found {}; copy it again, or pack again", shard.path.string(),
                            found < shard.size ? "is truncated" : "is too long", shard.size, found));
  }
  return index;
}

std::uint64_t verify_shards(const ShardIndex& index) {
  std::uint64_t bytes = 0;
  for (const Shard& shard : index.shards) {
    if (sha256_of_file(shard.path) != shard.sha256)
      throw Error(fmt::format("shard {} is damaged: its SHA-256 is not that of index.json; copy it again, or pack again", shard.path.string()));
    bytes += shard.size;
  }
  return bytes;
}

std::vector<std::string> shard_captions(const ShardIndex& index, const ShardSample& sample) {
  if (sample.caption_size == 0) return {};
  const fs::path& path = index.shards.at(sample.shard).path;
  const InputFile file(path);
  const auto fail = [&](const std::string& what) { return Error(fmt::format("{} is damaged at byte {}: {}", path.string(), sample.caption_offset, what)); };
  std::array<std::byte, kTarBlock> header;
  std::string text(sample.caption_size, '\0');
  if (sample.caption_offset < kTarBlock) throw fail("no caption begins here");
  file.read(header, sample.caption_offset - kTarBlock);
  if (const std::string damage = tar_header_damage(header, sample.caption_size); !damage.empty()) throw fail(damage);
  file.read(std::as_writable_bytes(std::span(text)), sample.caption_offset);
  if (!tar_member_name(header).ends_with(".json")) return {text};
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw fail("it is no JSON object");
  std::vector<std::string> captions;
  for (const char* key : {"caption", "captions"}) {
    if (!json.contains(key)) continue;
    const Json& value = json[key];
    for (const Json& caption : value.is_array() ? value : Json::array({value}))
      captions.push_back(caption.is_string() ? caption.get<std::string>() : throw fail(fmt::format("its {} is no text", key)));
  }
  return captions;
}

}  // namespace uvit
