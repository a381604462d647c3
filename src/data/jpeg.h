#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace uvit {

/// Pixels side by side: RGB RGB ..., or grey.
struct InterleavedImage {
  int channels = 0, height = 0, width = 0;
  int scale = 1;  ///< 2, 4 or 8: a pixel stands for so many by so many of the file's, at the right and lower edge for fewer
  int full_height = 0, full_width = 0;  ///< of the file
  std::vector<std::uint8_t> pixels;
};

/// Decodes a JPEG of one or three components with libjpeg, exactly (the slow integer DCT, smooth chroma), as OpenCV and Pillow do; `image` keeps its memory for the
/// next one. @param least_height,least_width  where they are above 0, a colour picture is decoded at 1/2, 1/4 or 1/8 of its size, as small as both sides stay at
/// least these; such pixels are near the mean of those that they stand for, not equal to it
/// @return false where it is another kind (CMYK) or does not decode: another decoder may say why
bool decode_jpeg(std::span<const std::byte> file, InterleavedImage& image, std::int64_t least_height = 0, std::int64_t least_width = 0);

}  // namespace uvit
