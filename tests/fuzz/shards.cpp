// The first byte chooses: a plain tar, or an index (index.json, border, samples.bin) over a shard of 4096 bytes. "CRC" in the index stands for the checksum of
// the records, which would otherwise keep damage from the parser.
#include <fmt/format.h>

#include "core/hash.h"
#include "data/dataset.h"
#include "data/shard_index.h"
#include "fuzz.h"

namespace {

using namespace uvit;

void read_all(const std::filesystem::path& path) {
  DataConfig config;
  config.dataset = "shards";
  config.path = path.string();
  config.image_size = {1};
  const auto dataset = open_dataset(config, Split::train);
  std::vector<std::uint8_t> pixel(1);
  for (std::int64_t i = 0; i < std::min<std::int64_t>(dataset->size(), 16); ++i) {
    dataset->label(i);
    fuzz::read_or_refuse([&] { dataset->read(i, pixel); });
  }
  const ShardIndex index = find_shards(path, true);
  for (std::size_t i = 0; i < std::min<std::size_t>(index.samples.size(), 16); ++i) fuzz::read_or_refuse([&] { shard_captions(index, index.samples[i]); });
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  fuzz::load_decoders();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view rest = fuzz::text_of(data + 1, size - 1);
  const auto& folder = fuzz::folder();
  if (data[0] == 't') return fuzz::read_or_refuse([&] { read_all(folder.put("x.tar", rest)); });
  std::string json(fuzz::take_part(rest));
  if (const std::size_t at = json.find("CRC"); at != std::string::npos) json.replace(at, 3, fmt::format("{}", crc32(std::as_bytes(std::span(rest)))));
  folder.put("index.json", json);
  folder.put("samples.bin", rest);
  folder.put("00000.tar", std::string(4096, 'x'));
  return fuzz::read_or_refuse([&] { read_all(folder.path()); });
}
