#pragma once
#include <cstdint>

namespace uvit {

/// Shrinks an interleaved RGB picture: a value is the mean of the rectangle that it covers, pixels at its border counted by their share. Rows first, then columns, in
/// float: the values of cv::resize with INTER_AREA for factors that are not both whole, bit for bit, in less time (the channels go through one vector).
/// @param pixels  [height, width, 3]
/// @param out     [out_height, out_width, 3], no side larger than that of the picture
/// @param extent_height,extent_width  how much of the picture, from its upper left, becomes `out`: all of it, or somewhat less
void resize_area_rgb(const std::uint8_t* pixels, int height, int width, std::uint8_t* out, int out_height, int out_width, double extent_height,
                     double extent_width);
inline void resize_area_rgb(const std::uint8_t* pixels, int height, int width, std::uint8_t* out, int out_height, int out_width) {
  resize_area_rgb(pixels, height, width, out, out_height, out_width, height, width);
}

}  // namespace uvit
