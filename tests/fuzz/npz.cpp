// The first byte chooses: a whole archive, or one .npy, whose checksums cannot keep damage from the parser.
#include "fuzz.h"
#include "io/npz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto path = uvit::fuzz::folder().put("x", uvit::fuzz::text_of(data + 1, size - 1));
  return uvit::fuzz::read_or_refuse([&] {
    if (data[0] == 'z') {
      uvit::read_npz(path);
      return;
    }
    const uvit::HostTensor tensor = uvit::read_npy(path);
    if (uvit::byte_size(tensor.dtype, tensor.shape) != tensor.data.size()) std::abort();
  });
}
