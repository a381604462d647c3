// CIFAR-10's binary files: parts between borders are the batches; the first byte of all chooses the test batch of CIFAR-100 instead.
#include "data/dataset.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const bool hundred = data[0] == '1';
  std::string_view rest = uvit::fuzz::text_of(data + 1, size - 1);
  const auto& folder = uvit::fuzz::folder();
  if (hundred) folder.put("test.bin", rest);
  for (int batch = 1; batch <= 5; ++batch) folder.put("data_batch_" + std::to_string(batch) + ".bin", uvit::fuzz::take_part(rest));
  return uvit::fuzz::read_or_refuse([&] {
    uvit::DataConfig config;
    config.dataset = hundred ? "cifar100" : "cifar10";
    config.path = folder.path().string();
    config.image_size = {32};
    config.channels = 1;
    const auto dataset = uvit::open_dataset(config, hundred ? uvit::Split::test : uvit::Split::train);
    std::vector<std::uint8_t> pixels(32 * 32);
    for (std::int64_t i = 0; i < dataset->size(); ++i) {
      dataset->read(i, pixels);
      if (dataset->label(i) < 0 || dataset->label(i) >= dataset->num_classes()) std::abort();
    }
  });
}
