#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace uvit {

/// Where the parts of one sample lie.
struct ShardSample {
  std::uint64_t offset = 0;          ///< of the image's bytes in its shard
  std::uint64_t caption_offset = 0;  ///< of KEY.txt or KEY.json
  std::uint32_t size = 0;            ///< bytes of the image
  std::uint32_t crc = 0;             ///< CRC-32 of them, where the index has checksums
  std::uint32_t label = 0;
  std::uint32_t caption_size = 0;    ///< 0: no caption
  std::uint32_t shard = 0;           ///< number of its shard
};

struct Shard {
  std::filesystem::path path;
  std::uint64_t size = 0;  ///< bytes
  std::uint64_t count = 0; ///< samples
  std::string sha256;      ///< "" without checksums
};

/// The samples of a set of tar shards, in their order. A sample is the members KEY.jpg (or another image), KEY.cls, the number of the class, and KEY.txt, one
/// caption, or KEY.json, {"captions": [...]}: webdataset's form, in which KEY ends at the first dot of the file's name.
struct ShardIndex {
  std::vector<Shard> shards;
  std::vector<ShardSample> samples;
  std::int64_t num_classes = 0;  ///< 0 without classes
  std::vector<std::string> class_names;
  std::string source;      ///< what was packed, for people
  bool checksums = false;  ///< written by `uvit pack`; else made by list_shards
};

/// Writes index.json and samples.bin into a folder: the shards' names, sizes and SHA-256, and 32 bytes a sample, little-endian: offset u64, caption offset u64,
/// size u32, crc u32, label u32, caption size u32.
void write_shard_index(const std::filesystem::path& folder, const ShardIndex& index);

/// Reads them and checks that every shard is there and has its size. Throws Error naming the file and what is wrong with it.
ShardIndex read_shard_index(const std::filesystem::path& folder);

/// The same for the content of the two files; looks at no shard.
ShardIndex parse_shard_index(const std::filesystem::path& folder, const std::string& json, std::span<const std::byte> records);

/// Finds the samples of tar files that have no index by their headers. Throws Error naming the file and the sample where one has no image, two images or a
/// class that is no number, or where only some have a class.
ShardIndex list_shards(const std::vector<std::filesystem::path>& tars);

/// The index of a split, from its index.json or else its tar files. `path` is a folder of tar files, one with train/ and test/ (or val/) of that kind, or a single
/// tar file; where there are no splits both are all samples. Throws Error naming what is missing or damaged.
ShardIndex find_shards(const std::filesystem::path& path, bool train);

/// Compares every shard with its checksum. Throws Error naming the first that differs. @return bytes compared
std::uint64_t verify_shards(const ShardIndex& index);

/// The captions of a sample, none where it has none. Throws Error naming the shard and the byte.
std::vector<std::string> shard_captions(const ShardIndex& index, const ShardSample& sample);

}  // namespace uvit
