#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace uvit {

/// uint8 image, [C, H, W] row-major, C = 1 grey, 3 RGB, 4 RGBA.
struct Image {
  std::int64_t channels = 0, height = 0, width = 0;
  std::vector<std::uint8_t> pixels;
};

/// Decodes JPEG, PNG, WebP or BMP and converts it to `channels`. 16-bit and palette images are reduced to 8 bits (16 bits: the high byte); an EXIF
/// orientation is not applied. Throws Error naming the file when it is missing, cut, damaged, or of another format.
Image read_image(const std::filesystem::path& path, std::int64_t channels);

/// The same for an image file in memory. @param name  for messages
Image decode_image(std::span<const std::byte> file, std::int64_t channels, const std::string& name);

/// decode_image, then resize_and_center_crop, in one go: the same pixels in less time. @param pixels  [C, H, W]
/// @param jpeg_scaling  a large JPEG is decoded at a fraction of its size (decode_jpeg) that is still 1.5 times the wanted one: other pixels
void decode_fitted(std::span<const std::byte> file, std::int64_t channels, std::int64_t height, std::int64_t width, const std::string& name,
                   std::span<std::uint8_t> pixels, bool jpeg_scaling = false);

/// Grey to colour repeats the value; colour to grey is ITU-R 601 luma in 16-bit fixed point, as Pillow rounds it; alpha is dropped, or added as 255.
/// @param channels  1, 3 or 4, else Error
Image convert_channels(const Image& image, std::int64_t channels);

/// Scales the image (area filter when it shrinks) so that height x width is covered, then cuts the centre.
/// Throws Error when the image is smaller than asked: images are never enlarged.
Image resize_and_center_crop(const Image& image, std::int64_t height, std::int64_t width);

std::vector<std::byte> encode_png(const Image& image);
void write_png(const std::filesystem::path& path, const Image& image);

/// Pixels of a sample in [-1, 1]: clamp((x + 1) / 2, 0, 1) * 255 + 0.5, truncated (as torchvision's save_image does). NaN becomes 0.
std::vector<std::uint8_t> quantise(std::span<const float> values);

/// Lays equal images out in rows x columns, with `padding` white pixels between them; cells left over in the last row are white.
/// Throws Error when the images differ in size or channels, or there is none.
Image make_grid(const std::vector<Image>& images, std::int64_t columns, std::int64_t padding = 2);

}  // namespace uvit
