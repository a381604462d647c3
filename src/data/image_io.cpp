#include "data/image_io.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <string>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data/area_resize.h"
#include "data/image_check.h"
#include "data/jpeg.h"

namespace uvit {
namespace {

// OpenCV would log its own lines beside our one error, and start threads under the loader's.
void quieten_opencv() {
  static std::once_flag once;
  std::call_once(once, [] {
    cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT);
    cv::setNumThreads(1);
  });
}

/// A decoded picture, interleaved, of 8 or 16 bits.
struct Decoded {
  cv::Mat mat;
  bool rgb = false;  ///< RGB(A); else OpenCV's BGR(A)
  int scale = 1;     ///< of a JPEG at a fraction of its size, InterleavedImage's
  cv::Size full;     ///< the file's size where scale is above 1
};

/// Interleaved -> planes of RGB(A), 8 bits. @param planes  [C, H, W]
void split_planes(const Decoded& decoded, std::uint8_t* planes) {
  const cv::Mat& mat = decoded.mat;
  const int channels = mat.channels();
  for (int c = 0; c < channels; ++c) {
    const int source = !decoded.rgb && channels >= 3 && c < 3 ? 2 - c : c;
    std::uint8_t* out = planes + static_cast<std::size_t>(c) * mat.total();
    for (int y = 0; y < mat.rows; ++y, out += mat.cols) {
      if (mat.depth() == CV_16U) {
        const auto* row = mat.ptr<std::uint16_t>(y) + source;
        for (int x = 0; x < mat.cols; ++x) out[x] = static_cast<std::uint8_t>(row[x * channels] >> 8);
      } else {
        const auto* row = mat.ptr<std::uint8_t>(y) + source;
        for (int x = 0; x < mat.cols; ++x) out[x] = row[x * channels];
      }
    }
  }
}

cv::Mat to_mat(const Image& image) {
  const int channels = static_cast<int>(image.channels);
  cv::Mat mat(static_cast<int>(image.height), static_cast<int>(image.width), CV_8UC(channels));
  const std::size_t plane = mat.total();
  for (int c = 0; c < channels; ++c) {
    const int target = channels >= 3 && c < 3 ? 2 - c : c;
    for (std::size_t i = 0; i < plane; ++i) mat.data[i * channels + target] = image.pixels[c * plane + i];
  }
  return mat;
}

void require_channels(std::int64_t channels) {
  if (channels != 1 && channels != 3 && channels != 4) throw Error(fmt::format("an image has 1, 3 or 4 channels, not {}", channels));
}

/// @param least  of a JPEG: decode_jpeg's least height and width
Decoded decode(std::span<const std::byte> file, const std::string& name, cv::Size least = {}) {
  quieten_opencv();
  const std::string damage = image_damage(file);
  if (!damage.empty()) throw Error(fmt::format("cannot read image {}: {}", name, damage));
  if (file[0] == std::byte{0xFF}) {  // a JPEG, of which image_damage has seen the beginning
    thread_local InterleavedImage jpeg;
    if (decode_jpeg(file, jpeg, least.height, least.width))
      return {cv::Mat(jpeg.height, jpeg.width, CV_8UC(jpeg.channels), jpeg.pixels.data()), true, jpeg.scale, {jpeg.full_width, jpeg.full_height}};
  }
  Decoded decoded;
  try {
    const cv::Mat encoded(1, static_cast<int>(file.size()), CV_8UC1, const_cast<std::byte*>(file.data()));
    decoded.mat = cv::imdecode(encoded, cv::IMREAD_UNCHANGED);
  } catch (const cv::Exception& e) {
    throw Error(fmt::format("cannot read image {}: {}", name, e.err));
  }
  const cv::Mat& mat = decoded.mat;
  const bool known = mat.depth() == CV_8U || mat.depth() == CV_16U;
  if (mat.empty() || !known || mat.channels() == 2) throw Error(fmt::format("cannot read image {}: it does not decode", name));
  return decoded;
}

/// How an image is scaled to cover height x width, and the centre of the result.
struct Cover {
  cv::Size size;
  cv::Rect centre;
};

Cover cover_of(std::int64_t image_height, std::int64_t image_width, std::int64_t height, std::int64_t width) {
  if (image_height < height || image_width < width) {
    throw Error(fmt::format("the image has {} x {} pixels (height x width), fewer than the {} x {} of data.image_size; images are never enlarged",
                            image_height, image_width, height, width));
  }
  const double scale =
      std::max(static_cast<double>(height) / static_cast<double>(image_height), static_cast<double>(width) / static_cast<double>(image_width));
  const auto scaled = [scale](std::int64_t side, std::int64_t least) {
    return static_cast<int>(std::max<std::int64_t>(least, std::llround(static_cast<double>(side) * scale)));
  };
  const cv::Size size(scaled(image_width, width), scaled(image_height, height));
  const cv::Rect centre(static_cast<int>((size.width - width) / 2), static_cast<int>((size.height - height) / 2), static_cast<int>(width),
                        static_cast<int>(height));
  return {size, centre};
}

/// cv::resize with its area filter.
cv::Mat scaled_to(const cv::Mat& mat, cv::Size size) {
  if (mat.size() == size) return mat;
  cv::Mat scaled;
  const bool whole = mat.cols % size.width == 0 && mat.rows % size.height == 0;  // OpenCV has a faster and differently rounded way for whole factors
  if (mat.type() != CV_8UC3 || whole) {
    cv::resize(mat, scaled, size, 0, 0, cv::INTER_AREA);
    return scaled;
  }
  scaled.create(size, CV_8UC3);
  resize_area_rgb(mat.data, mat.rows, mat.cols, scaled.data, size.height, size.width);
  return scaled;
}

}  // namespace

Image convert_channels(const Image& image, std::int64_t channels) {
  require_channels(channels);
  require_channels(image.channels);
  if (image.channels == channels) return image;
  const std::size_t plane = static_cast<std::size_t>(image.height * image.width);
  Image out{channels, image.height, image.width, std::vector<std::uint8_t>(plane * static_cast<std::size_t>(channels), 255)};
  if (channels == 1) {
    const std::uint8_t *r = image.pixels.data(), *g = r + plane, *b = g + plane;
    for (std::size_t i = 0; i < plane; ++i) out.pixels[i] = static_cast<std::uint8_t>((r[i] * 19595u + g[i] * 38470u + b[i] * 7471u + 0x8000u) >> 16);
  } else {
    for (std::size_t c = 0; c < 3; ++c) {
      const auto* source = image.pixels.data() + (image.channels == 1 ? 0 : c * plane);
      std::copy(source, source + plane, out.pixels.data() + c * plane);
    }
  }
  return out;
}

Image decode_image(std::span<const std::byte> file, std::int64_t channels, const std::string& name) {
  require_channels(channels);
  const Decoded decoded = decode(file, name);
  Image image{decoded.mat.channels(), decoded.mat.rows, decoded.mat.cols, {}};
  image.pixels.resize(decoded.mat.total() * static_cast<std::size_t>(image.channels));
  split_planes(decoded, image.pixels.data());
  return convert_channels(image, channels);
}

void decode_fitted(std::span<const std::byte> file, std::int64_t channels, std::int64_t height, std::int64_t width, const std::string& name,
                   std::span<std::uint8_t> pixels, bool jpeg_scaling) {
  require_channels(channels);
  const auto half_more = [](std::int64_t side) { return static_cast<int>((3 * side + 1) / 2); };
  Decoded decoded = decode(file, name, jpeg_scaling && channels == 3 ? cv::Size(half_more(width), half_more(height)) : cv::Size());
  try {
    if (decoded.scale > 1) {
      const Cover cover = cover_of(decoded.full.height, decoded.full.width, height, width);
      const cv::Mat& mat = decoded.mat;
      cv::Mat scaled(cover.size, CV_8UC3);
      resize_area_rgb(mat.data, mat.rows, mat.cols, scaled.data, scaled.rows, scaled.cols, static_cast<double>(decoded.full.height) / decoded.scale,
                      static_cast<double>(decoded.full.width) / decoded.scale);
      return split_planes({.mat = scaled(cover.centre), .rgb = true, .full = {}}, pixels.data());
    }
    if (decoded.mat.channels() == channels && decoded.mat.depth() == CV_8U) {  // the channels are scaled side by side, and only what is left is taken apart
      const Cover cover = cover_of(decoded.mat.rows, decoded.mat.cols, height, width);
      decoded.mat = scaled_to(decoded.mat, cover.size)(cover.centre);
      return split_planes(decoded, pixels.data());
    }
    Image image{decoded.mat.channels(), decoded.mat.rows, decoded.mat.cols, {}};
    image.pixels.resize(decoded.mat.total() * static_cast<std::size_t>(image.channels));
    split_planes(decoded, image.pixels.data());
    const Image cut = resize_and_center_crop(convert_channels(image, channels), height, width);
    std::copy(cut.pixels.begin(), cut.pixels.end(), pixels.begin());
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", name, error.what()));
  }
}

Image read_image(const std::filesystem::path& path, std::int64_t channels) {
  const std::string file = read_file(path);
  return decode_image(std::as_bytes(std::span(file)), channels, path.string());
}

Image resize_and_center_crop(const Image& image, std::int64_t height, std::int64_t width) {
  const auto [size, centre] = cover_of(image.height, image.width, height, width);
  if (image.height == height && image.width == width) return image;
  quieten_opencv();
  Image out{image.channels, height, width, std::vector<std::uint8_t>(static_cast<std::size_t>(image.channels * height * width))};
  for (std::int64_t c = 0; c < image.channels; ++c) {
    auto* source = const_cast<std::uint8_t*>(image.pixels.data()) + c * image.height * image.width;  // cv::Mat has no const view
    const cv::Mat plane(static_cast<int>(image.height), static_cast<int>(image.width), CV_8UC1, source);
    cv::Mat resized = plane;
    if (plane.size() != size) cv::resize(plane, resized, size, 0, 0, cv::INTER_AREA);
    cv::Mat target(static_cast<int>(height), static_cast<int>(width), CV_8UC1, out.pixels.data() + c * height * width);
    resized(centre).copyTo(target);
  }
  return out;
}

std::vector<std::byte> encode_png(const Image& image) {
  require_channels(image.channels);
  std::vector<std::uint8_t> encoded;
  if (image.height <= 0 || image.width <= 0 || !cv::imencode(".png", to_mat(image), encoded)) {
    throw Error(fmt::format("cannot encode an image of {} x {} pixels as PNG", image.height, image.width));
  }
  const auto bytes = std::as_bytes(std::span(encoded));
  return {bytes.begin(), bytes.end()};
}

void write_png(const std::filesystem::path& path, const Image& image) { write_file(path, encode_png(image)); }

std::vector<std::uint8_t> quantise(std::span<const float> values) {
  std::vector<std::uint8_t> pixels(values.size());
  std::transform(values.begin(), values.end(), pixels.begin(), [](float x) {
    const float unit = (x + 1.0f) / 2.0f;
    return static_cast<std::uint8_t>((unit > 0.0f ? std::min(unit, 1.0f) : 0.0f) * 255.0f + 0.5f);
  });
  return pixels;
}

Image make_grid(const std::vector<Image>& images, std::int64_t columns, std::int64_t padding) {
  if (images.empty() || columns < 1) throw Error("a grid needs at least one image and one column");
  const Image& first = images.front();
  const auto count = static_cast<std::int64_t>(images.size());
  columns = std::min(columns, count);
  const std::int64_t rows = (count + columns - 1) / columns;
  Image grid{first.channels, rows * (first.height + padding) - padding, columns * (first.width + padding) - padding, {}};
  grid.pixels.assign(static_cast<std::size_t>(grid.channels * grid.height * grid.width), 255);
  for (std::int64_t i = 0; i < count; ++i) {
    const Image& image = images[static_cast<std::size_t>(i)];
    if (image.channels != first.channels || image.height != first.height || image.width != first.width)
      throw Error("the images of a grid must be of one size");
    const std::int64_t top = i / columns * (first.height + padding), left = i % columns * (first.width + padding);
    for (std::int64_t row = 0; row < image.channels * image.height; ++row) {
      const std::int64_t c = row / image.height, y = row % image.height;
      const auto* source = image.pixels.data() + row * image.width;
      std::copy(source, source + image.width, grid.pixels.data() + (c * grid.height + top + y) * grid.width + left);
    }
  }
  return grid;
}

}  // namespace uvit
