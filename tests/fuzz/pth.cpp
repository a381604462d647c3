// The first byte chooses: a whole torch.save file, or the pickle in one, whose checksum cannot keep damage from the unpickler.
#include <array>

#include "fuzz.h"
#include "io/pth.h"
#include "io/zip_archive.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view input = uvit::fuzz::text_of(data + 1, size - 1);
  const auto& folder = uvit::fuzz::folder();
  std::filesystem::path path = folder.path() / "x.pth";
  if (data[0] == 'z') {
    folder.put("x.pth", input);
  } else {
    const std::array<std::byte, 96> storage{};
    const std::string_view order = "little";
    const std::array members = {uvit::ZipMember{"a/data.pkl", std::as_bytes(std::span(input))}, uvit::ZipMember{"a/byteorder", std::as_bytes(std::span(order))},
                                uvit::ZipMember{"a/data/0", storage}};
    uvit::write_zip(path, members, false);
  }
  return uvit::fuzz::read_or_refuse([&] { uvit::read_pth_state_dict(path); });
}
