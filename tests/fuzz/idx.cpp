// The four files of MNIST's format: the images, and behind a border the labels; plain or gzip as their bytes say.
#include "data/dataset.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view rest = uvit::fuzz::text_of(data, size);
  const auto& folder = uvit::fuzz::folder();
  folder.put("train-images-idx3-ubyte.gz", uvit::fuzz::take_part(rest));
  folder.put("train-labels-idx1-ubyte.gz", rest);
  return uvit::fuzz::read_or_refuse([&] {
    uvit::DataConfig config;
    config.dataset = "idx";
    config.path = folder.path().string();
    config.image_size = {2};
    config.channels = 3;
    const auto dataset = uvit::open_dataset(config, uvit::Split::train);
    std::vector<std::uint8_t> pixels(12);
    for (std::int64_t i = 0; i < std::min<std::int64_t>(dataset->size(), 8); ++i) dataset->read(i, pixels);
  });
}
