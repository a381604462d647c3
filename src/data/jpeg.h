#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace uvit {

/// Pixels side by side: RGB RGB ..., or grey.
struct InterleavedImage {
  int channels = 0, height = 0, width = 0;
  std::vector<std::uint8_t> pixels;
};

/// Decodes a JPEG of one or three components with libjpeg, exactly (the slow integer DCT, smooth chroma), as OpenCV and Pillow do; `image` keeps its memory for the
/// next one. @return false where it is another kind (CMYK) or does not decode: another decoder may say why
bool decode_jpeg(std::span<const std::byte> file, InterleavedImage& image);

}  // namespace uvit
