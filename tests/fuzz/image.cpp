// A JPEG, PNG, WebP or BMP file, decoded and cut to a small picture.
#include "data/image_io.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  uvit::fuzz::load_decoders();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return uvit::fuzz::read_or_refuse([&] {
    const uvit::Image image = uvit::decode_image(std::as_bytes(std::span(data, size)), 3, "x");
    if (image.pixels.size() != static_cast<std::size_t>(3 * image.height * image.width)) std::abort();
    uvit::resize_and_center_crop(image, 2, 3);
  });
}
