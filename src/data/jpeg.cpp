#include "data/jpeg.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
// jpeglib.h needs the two above before it
#include <jpeglib.h>

namespace uvit {
namespace {

struct ErrorManager {
  jpeg_error_mgr base;
  std::jmp_buf back;
};

[[noreturn]] void on_error(j_common_ptr info) { std::longjmp(reinterpret_cast<ErrorManager*>(info->err)->back, 1); }
void on_message(j_common_ptr, int) {}  // libjpeg would print warnings to stderr; OpenCV passes over them too

/// A decompressor for each thread: making one costs as much as a small picture.
struct Decompressor {
  Decompressor() {
    info.err = jpeg_std_error(&error.base);
    error.base.error_exit = on_error;
    error.base.emit_message = on_message;
    jpeg_create_decompress(&info);
  }
  ~Decompressor() { jpeg_destroy_decompress(&info); }
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;

  ErrorManager error{};
  jpeg_decompress_struct info{};
};

}  // namespace

bool decode_jpeg(std::span<const std::byte> file, InterleavedImage& image, std::int64_t least_height, std::int64_t least_width) {
  constexpr JDIMENSION kRows = 16;  // a row of blocks, with chroma at half height
  thread_local Decompressor decompressor;
  jpeg_decompress_struct& info = decompressor.info;
  // Nothing below may need a destructor: an error jumps back to here.
  if (setjmp(decompressor.error.back)) {
    jpeg_abort_decompress(&info);
    return false;
  }
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(file.data()), static_cast<unsigned long>(file.size()));
  jpeg_read_header(&info, TRUE);
  if (info.num_components != 1 && info.num_components != 3) {
    jpeg_abort_decompress(&info);
    return false;
  }
  info.out_color_space = info.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
  info.dct_method = JDCT_ISLOW;
  info.do_fancy_upsampling = TRUE;
  info.scale_num = 1;
  info.scale_denom = 1;
  const auto fits = [&](std::int64_t denominator) { return info.image_height >= least_height * denominator && info.image_width >= least_width * denominator; };
  while (least_height > 0 && info.num_components == 3 && info.scale_denom < 8 && fits(2 * info.scale_denom)) info.scale_denom *= 2;
  jpeg_start_decompress(&info);
  image.channels = info.output_components;
  image.scale = static_cast<int>(info.scale_denom);
  image.full_height = static_cast<int>(info.image_height);
  image.full_width = static_cast<int>(info.image_width);
  image.height = static_cast<int>(info.output_height);
  image.width = static_cast<int>(info.output_width);
  const std::size_t row = static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.channels);
  image.pixels.resize(row * info.output_height);
  while (info.output_scanline < info.output_height) {
    JSAMPROW rows[kRows];
    for (JDIMENSION i = 0; i < kRows && info.output_scanline + i < info.output_height; ++i) rows[i] = image.pixels.data() + row * (info.output_scanline + i);
    jpeg_read_scanlines(&info, rows, std::min(kRows, info.output_height - info.output_scanline));
  }
  jpeg_finish_decompress(&info);
  return true;
}

}  // namespace uvit
