// A whole file, read at once and row by row.
#include "fuzz.h"
#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto path = uvit::fuzz::folder().put("x.safetensors", uvit::fuzz::text_of(data, size));
  return uvit::fuzz::read_or_refuse([&] {
    const uvit::TensorFile file = uvit::read_safetensors(path);
    const uvit::SafetensorsReader reader(path);
    for (const auto& [name, tensor] : file.tensors) {
      if (uvit::byte_size(tensor.dtype, tensor.shape) != tensor.data.size()) std::abort();
      if (tensor.shape.empty() || tensor.shape[0] == 0) continue;
      std::vector<std::byte> row(tensor.data.size() / static_cast<std::size_t>(tensor.shape[0]));
      reader.read_row(name, tensor.shape[0] - 1, row);
    }
  });
}
