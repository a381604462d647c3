// The JSON and text files that describe datasets; the first byte chooses which.
#include "data/dataset.h"
#include "data/latent_index.h"
#include "fuzz.h"

namespace {

using namespace uvit;

void open_as(const std::string& dataset, const std::filesystem::path& path) {
  DataConfig config;
  config.dataset = dataset;
  config.path = path.string();
  const auto opened = open_dataset(config, Split::train);
  for (std::int64_t i = 0; i < std::min<std::int64_t>(opened->size(), 8); ++i) {
    opened->label(i);
    opened->describe(i);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text = fuzz::text_of(data + 1, size - 1);
  const auto& folder = fuzz::folder();
  return fuzz::read_or_refuse([&] {
    switch (data[0]) {
      case 'l': folder.put("latents.json", text); read_latent_index(folder.path()); return;
      case 'c': folder.put("captions.json", text); read_caption_index(folder.path()); return;
      case 'j': return open_as("listed", folder.put("x.json", text));
      case 'v': return open_as("listed", folder.put("x.csv", text));
      case 'o': folder.put("annotations/captions_train2014.json", text); return open_as("coco", folder.path());
      case 'a': folder.put("list_eval_partition.txt", text); return open_as("celeba", folder.path());
      default: return;
    }
  });
}
