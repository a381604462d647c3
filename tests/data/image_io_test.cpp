#include "data/image_io.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <random>
#include <span>

#include "core/error.h"
#include "core/hash.h"
#include "data/area_resize.h"
#include "data/jpeg.h"
#include "data_files.h"
#include "io/safetensors.h"
#include "support/fixtures.h"

using namespace uvit;
using namespace uvit::test;

namespace {

Bytes encoded(const std::string& ending, const cv::Mat& mat, const std::vector<int>& options = {}) {
  Bytes bytes;
  REQUIRE(cv::imencode(ending, mat, bytes, options));
  return bytes;
}

// A smooth picture, which lossy formats keep.
cv::Mat smooth(int height, int width) {
  cv::Mat mat(height, width, CV_8UC3);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) mat.at<cv::Vec3b>(y, x) = {static_cast<uchar>(4 * x), static_cast<uchar>(4 * y), static_cast<uchar>(2 * (x + y))};
  }
  return mat;
}

// Makes the checksum of every whole chunk right, so that damage reaches the decoder.
void repair_checksums(Bytes& png) {
  std::size_t at = 8;
  while (at + 12 <= png.size()) {
    const std::size_t length = static_cast<std::size_t>(png[at]) << 24 | static_cast<std::size_t>(png[at + 1]) << 16 |
                               static_cast<std::size_t>(png[at + 2]) << 8 | png[at + 3];
    if (length > png.size() || at + 12 + length > png.size()) return;
    const std::uint32_t sum = crc32(std::as_bytes(std::span(png).subspan(at + 4, length + 4)));
    for (std::size_t i = 0; i < 4; ++i) png[at + 8 + length + i] = static_cast<std::uint8_t>(sum >> (24 - 8 * i));
    at += 12 + length;
  }
}

}  // namespace

TEST_CASE("odd kinds of PNG become RGB as Pillow converts them") {
  const TensorFile expected = read_safetensors(fixtures() / "fid_png_odd.safetensors");
  REQUIRE(!expected.tensors.empty());
  for (const auto& [name, tensor] : expected.tensors) {
    INFO(name);
    const Image image = read_image(fixtures() / "fid_png_odd" / (name + ".png"), 3);
    CHECK(std::vector<std::int64_t>{image.channels, image.height, image.width} == tensor.shape);
    CHECK(std::equal(image.pixels.begin(), image.pixels.end(), tensor.as<std::uint8_t>(), tensor.as<std::uint8_t>() + tensor.numel()));
  }
}

TEST_CASE("samples become pixels as torchvision rounds them") {
  const TensorFile fixture = read_safetensors(fixtures() / "fid_image_quantise.safetensors");
  const HostTensor &sample = fixture.at("sample"), &expected = fixture.at("uint8");
  const auto pixels = quantise({sample.as<float>(), static_cast<std::size_t>(sample.numel())});
  CHECK(pixels == std::vector<std::uint8_t>(expected.as<std::uint8_t>(), expected.as<std::uint8_t>() + expected.numel()));
  const std::size_t each = pixels.size() / 2;
  for (std::size_t i = 0; i < 2; ++i) {
    const Image stored = read_image(fixtures() / "fid_png_odd" / ("quantised_" + std::to_string(i) + ".png"), 3);
    CHECK(std::equal(stored.pixels.begin(), stored.pixels.end(), pixels.begin() + static_cast<std::ptrdiff_t>(i * each)));
  }
  CHECK(quantise(std::vector<float>{std::nanf(""), -9.0f, 9.0f, -1.0f, 1.0f}) == std::vector<std::uint8_t>{0, 0, 255, 0, 255});
}

TEST_CASE("PNG keeps every pixel of 1, 3 and 4 channels") {
  const ScratchFolder folder;
  for (const std::int64_t channels : {1, 3, 4}) {
    const Image image = pattern_image(channels, 7, 5, static_cast<std::uint32_t>(channels));
    write_png(folder.path() / "image.png", image);
    const Image back = read_image(folder.path() / "image.png", channels);
    CHECK(back.channels == channels);
    CHECK(back.height == 7);
    CHECK(back.width == 5);
    CHECK(back.pixels == image.pixels);
  }
}

TEST_CASE("16 bits a channel keep their high byte") {
  const ScratchFolder folder;
  cv::Mat grey(1, 3, CV_16UC1);
  grey.at<ushort>(0, 0) = 0x00FF;
  grey.at<ushort>(0, 1) = 0x1234;
  grey.at<ushort>(0, 2) = 0xFFFF;
  put(folder.path() / "grey.png", encoded(".png", grey));
  CHECK(read_image(folder.path() / "grey.png", 1).pixels == Bytes{0x00, 0x12, 0xFF});
  cv::Mat colour(1, 1, CV_16UC3, cv::Scalar(0x3333, 0x2222, 0x11FF));
  put(folder.path() / "colour.png", encoded(".png", colour));
  CHECK(read_image(folder.path() / "colour.png", 3).pixels == Bytes{0x11, 0x22, 0x33});
}

TEST_CASE("channels convert: luma, repeated grey, alpha added and dropped") {
  const Image rgb{3, 1, 4, {255, 0, 0, 100, 0, 255, 0, 150, 0, 0, 255, 200}};
  CHECK(convert_channels(rgb, 1).pixels == Bytes{76, 150, 29, 141});
  CHECK(convert_channels({1, 1, 2, {7, 9}}, 3).pixels == Bytes{7, 9, 7, 9, 7, 9});
  CHECK(convert_channels({1, 1, 2, {7, 9}}, 4).pixels == Bytes{7, 9, 7, 9, 7, 9, 255, 255});
  CHECK(convert_channels(convert_channels(rgb, 4), 3).pixels == rgb.pixels);
  check_error([&] { convert_channels(rgb, 2); }, {"1, 3 or 4", "2"});
}

TEST_CASE("JPEG, WebP and BMP decode to the picture that was written") {
  const ScratchFolder folder;
  const cv::Mat picture = smooth(32, 40);
  write_png(folder.path() / "exact.png", [&] {
    put(folder.path() / "direct.png", encoded(".png", picture));
    return read_image(folder.path() / "direct.png", 3);
  }());
  const Image exact = read_image(folder.path() / "exact.png", 3);
  const auto worst = [&](const std::string& ending, const std::vector<int>& options) {
    put(folder.path() / ("image" + ending), encoded(ending, picture, options));
    const Image image = read_image(folder.path() / ("image" + ending), 3);
    REQUIRE(image.pixels.size() == exact.pixels.size());
    int largest = 0;
    for (std::size_t i = 0; i < exact.pixels.size(); ++i) largest = std::max(largest, std::abs(int{image.pixels[i]} - int{exact.pixels[i]}));
    return largest;
  };
  CHECK(worst(".bmp", {}) == 0);
  CHECK(worst(".webp", {cv::IMWRITE_WEBP_QUALITY, 101}) == 0);
  CHECK(worst(".jpg", {cv::IMWRITE_JPEG_QUALITY, 100}) <= 8);
}

TEST_CASE("a JPEG decodes to the pixels that OpenCV gives, bit for bit") {
  for (const int quality : {30, 75, 95})
    for (const int progressive : {0, 1})
      for (const auto& [height, width] : {std::pair(1, 1), std::pair(17, 33), std::pair(64, 48), std::pair(131, 257)})
        for (const bool grey : {false, true}) {
          cv::Mat picture = smooth(height, width);
          if (grey) cv::cvtColor(picture, picture, cv::COLOR_BGR2GRAY);
          const Bytes file = encoded(".jpg", picture, {cv::IMWRITE_JPEG_QUALITY, quality, cv::IMWRITE_JPEG_PROGRESSIVE, progressive});
          cv::Mat expected = cv::imdecode(file, cv::IMREAD_UNCHANGED);
          if (!grey) cv::cvtColor(expected, expected, cv::COLOR_BGR2RGB);
          InterleavedImage image;
          REQUIRE(decode_jpeg(std::as_bytes(std::span(file)), image));
          CHECK(image.channels == expected.channels());
          CHECK(image.pixels == Bytes(expected.data, expected.data + expected.total() * expected.elemSize()));
        }
  InterleavedImage image;
  const Bytes none = {0xFF, 0xD8, 0xFF, 0xD9};
  CHECK_FALSE(decode_jpeg(std::as_bytes(std::span(none)), image));
}

TEST_CASE("decoding to a size at once gives the pixels of decoding, scaling and cutting") {
  for (const char* ending : {".jpg", ".png"})
    for (const auto& [height, width] : {std::pair(8, 8), std::pair(16, 16), std::pair(32, 24), std::pair(33, 57), std::pair(100, 75), std::pair(9, 64), std::pair(72, 72)})
      for (const std::int64_t channels : {1, 3, 4}) {
        INFO(ending << " " << height << " x " << width << ", " << channels << " channels");
        const Bytes file = encoded(ending, smooth(height, width));
        const auto bytes = std::as_bytes(std::span(file));
        Bytes pixels(static_cast<std::size_t>(channels * 8 * 8));
        decode_fitted(bytes, channels, 8, 8, "x", pixels);
        CHECK(pixels == resize_and_center_crop(decode_image(bytes, channels, "x"), 8, 8).pixels);
      }
  const Bytes file = encoded(".jpg", smooth(7, 20));
  Bytes pixels(192);
  check_error([&] { decode_fitted(std::as_bytes(std::span(file)), 3, 8, 8, "small.jpg", pixels); }, {"small.jpg", "7 x 20", "8 x 8"});
}

TEST_CASE("a large JPEG decoded at a fraction of its size is nearly the picture that is wanted, in the same place; a smaller or grey one is that picture") {
  for (const bool grey : {false, true})
    for (const auto& [height, width, large] :
         {std::tuple(23, 64, false), std::tuple(24, 24, true), std::tuple(33, 57, true), std::tuple(100, 75, true), std::tuple(257, 230, true), std::tuple(193, 199, true)}) {
      INFO(height << " x " << width << (grey ? " grey" : ""));
      cv::Mat picture(height, width, CV_8UC3);  // without edges: what a pixel is off its place shows
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
          picture.at<cv::Vec3b>(y, x) = {static_cast<uchar>(255 * x / width), static_cast<uchar>(255 * y / height), static_cast<uchar>(255 * (x + y) / (width + height))};
      if (grey) cv::cvtColor(picture, picture, cv::COLOR_BGR2GRAY);
      const Bytes file = encoded(".jpg", picture, {cv::IMWRITE_JPEG_QUALITY, 95});
      const auto bytes = std::as_bytes(std::span(file));
      Bytes exact(3 * 8 * 8), fast(exact.size());
      decode_fitted(bytes, 3, 8, 8, "x", exact);
      decode_fitted(bytes, 3, 8, 8, "x", fast, true);
      const bool scaled = large && !grey;
      CHECK((fast != exact) == scaled);
      int worst = 0;
      for (std::size_t i = 0; i < exact.size(); ++i) worst = std::max(worst, std::abs(int{exact[i]} - int{fast[i]}));
      CHECK(worst <= 4);
      InterleavedImage image;
      REQUIRE(decode_jpeg(bytes, image, 12, 12));
      CHECK(std::min(image.height, image.width) >= 12);
      CHECK((image.height < height) == scaled);
    }
}

TEST_CASE("the area filter of colour pictures is OpenCV's, bit for bit") {
  std::mt19937 random(4);
  for (int i = 0; i < 300; ++i) {
    const int out_height = 1 + static_cast<int>(random() % 40), out_width = 1 + static_cast<int>(random() % 40);
    const int height = out_height + static_cast<int>(random() % 100), width = out_width + static_cast<int>(random() % 100);
    if (height % out_height == 0 && width % out_width == 0) continue;
    cv::Mat picture(height, width, CV_8UC3), expected;
    for (std::size_t k = 0; k < picture.total() * 3; ++k) picture.data[k] = static_cast<uchar>(random());
    cv::resize(picture, expected, {out_width, out_height}, 0, 0, cv::INTER_AREA);
    Bytes out(expected.total() * 3);
    resize_area_rgb(picture.data, height, width, out.data(), out_height, out_width);
    INFO(height << " x " << width << " to " << out_height << " x " << out_width);
    CHECK(out == Bytes(expected.data, expected.data + out.size()));
  }
}

TEST_CASE("a cut image of any format is refused by name, wherever it is cut") {
  const ScratchFolder folder;
  const cv::Mat picture = smooth(48, 48);
  for (const std::string ending : {".png", ".jpg", ".webp", ".bmp"}) {
    const Bytes whole = encoded(ending, picture);
    const auto path = folder.path() / ("cut" + ending);
    for (const std::size_t keep : {std::size_t{0}, std::size_t{1}, std::size_t{20}, whole.size() / 2, whole.size() - 20, whole.size() - 1}) {
      INFO(ending << " cut to " << keep << " of " << whole.size());
      put(path, Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(keep)));
      check_error([&] { read_image(path, 3); }, {path.string()});
    }
  }
}

TEST_CASE("damage inside an image and foreign formats are refused by name") {
  const ScratchFolder folder;
  const auto path = folder.path() / "bad.png";
  Bytes bytes = encoded(".png", smooth(20, 20));
  bytes[60] ^= 1;
  put(path, bytes);
  check_error([&] { read_image(path, 3); }, {path.string(), "checksum"});
  put(path, {'G', 'I', 'F', '8', '9', 'a', 0, 0, 0});
  check_error([&] { read_image(path, 3); }, {path.string(), "JPEG, PNG, WebP or BMP"});
  check_error([&] { read_image(folder.path() / "absent.png", 3); }, {"absent.png"});
  // containers that are whole but hold nothing that decodes
  put(path, {0xFF, 0xD8, 0xFF, 0xD9});
  check_error([&] { read_image(path, 3); }, {path.string()});
  put(path, {'R', 'I', 'F', 'F', 4, 0, 0, 0, 'W', 'E', 'B', 'P'});
  check_error([&] { read_image(path, 3); }, {path.string()});
  // 155 bytes that ask for 16132 x 16344 pixels
  check_error([&] { read_image(std::filesystem::path(UVIT_SOURCE_DIR) / "tests/fuzz/seeds/image/mended-large-webp", 3); }, {"mended-large-webp", "speaks of"});
}

TEST_CASE("a header that asks for more pixels than its bytes can hold is refused before memory is taken") {
  const ScratchFolder folder;
  const auto path = folder.path() / "bomb.png";
  const auto message = [&](const std::string& ending, std::size_t at, const Bytes& side) {
    Bytes bytes = encoded(ending, smooth(20, 20));
    std::copy(side.begin(), side.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
    put(path, bytes);
    check_error([&] { read_image(path, 3); }, {path.string(), "pixels"});
  };
  message(".png", 16, {0, 0x7F, 0xFF, 0xFF});
  message(".png", 16, {0x7F, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF});
  message(".bmp", 18, {0, 0, 2, 0});
  const Bytes jpeg = encoded(".jpg", smooth(20, 20));
  const std::string text(jpeg.begin(), jpeg.end());
  message(".jpg", text.find("\xFF\xC0") + 5, {0xFF, 0xFF, 0xFF, 0xFF});
}

TEST_CASE("image files with bytes changed anywhere are read or refused, never a crash") {
  const ScratchFolder folder;
  std::mt19937 random(5);
  const auto draw = [&random](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  std::size_t refused = 0, trials = 0;
  for (const std::string ending : {".png", ".jpg", ".webp", ".bmp"}) {
    const auto path = folder.path() / ("mutated" + ending);
    const Bytes whole = encoded(ending, smooth(24, 17));
    for (int trial = 0; trial < 250; ++trial) {
      Bytes bytes = whole;
      for (std::size_t changes = 1 + draw(4); changes-- > 0;) bytes[draw(bytes.size())] = static_cast<std::uint8_t>(draw(256));
      if (draw(4) == 0) bytes.resize(draw(bytes.size()) + 1);
      if (ending == ".png") repair_checksums(bytes);
      std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
      ++trials;
      try {
        const Image image = read_image(path, 3);
        CHECK(image.pixels.size() == static_cast<std::size_t>(3 * image.height * image.width));
      } catch (const Error& e) {
        CHECK(std::string(e.what()).find(path.string()) != std::string::npos);
        CHECK(std::string(e.what()).find('\n') == std::string::npos);
        ++refused;
      }
    }
  }
  CHECK(refused > trials / 10);
  CHECK(refused < trials);
}

TEST_CASE("resize covers the target, averages areas and cuts the centre") {
  // 4 x 8 halves to 2 x 4 by averages of 2 x 2, of which the middle two columns stay
  Image image{1, 4, 8, {}};
  for (int y = 0; y < 4; ++y) {
    for (int x = 0; x < 8; ++x) image.pixels.push_back(static_cast<std::uint8_t>(10 * (y / 2) + 20 * (x / 2) + (x % 2) * 2));
  }
  CHECK(resize_and_center_crop(image, 2, 2).pixels == Bytes{21, 41, 31, 51});
  const Image same = pattern_image(3, 6, 9, 1);
  CHECK(resize_and_center_crop(same, 6, 9).pixels == same.pixels);
  const Image centre = resize_and_center_crop(same, 6, 5);  // one side fits already: only cut
  for (std::size_t row = 0; row < 18; ++row) {
    for (std::size_t x = 0; x < 5; ++x) CHECK(centre.pixels[row * 5 + x] == same.pixels[row * 9 + x + 2]);
  }
  for (const auto& [height, width] : std::vector<std::pair<int, int>>{{1, 1}, {3, 7}, {5, 2}, {6, 9}}) {
    const Image cut = resize_and_center_crop(same, height, width);
    CHECK(cut.height == height);
    CHECK(cut.width == width);
    CHECK(cut.pixels.size() == static_cast<std::size_t>(3 * height * width));
  }
  check_error([&] { resize_and_center_crop(same, 7, 5); }, {"6 x 9", "7 x 5", "never enlarged"});
  check_error([&] { resize_and_center_crop(same, 5, 10); }, {"6 x 9", "5 x 10"});
}

TEST_CASE("a grid puts image i at row i / columns, column i % columns") {
  std::vector<Image> images;
  for (std::uint32_t i = 0; i < 5; ++i) images.push_back(pattern_image(3, 2, 3, i + 1));
  const Image grid = make_grid(images, 3, 1);
  CHECK(grid.height == 5);
  CHECK(grid.width == 11);
  for (std::int64_t c = 0; c < 3; ++c) {
    for (std::int64_t y = 0; y < grid.height; ++y) {
      for (std::int64_t x = 0; x < grid.width; ++x) {
        const std::int64_t i = y / 3 * 3 + x / 4, inner_y = y % 3, inner_x = x % 4;
        const bool inside = i < 5 && inner_y < 2 && inner_x < 3;
        const int expected = inside ? images[static_cast<std::size_t>(i)].pixels[static_cast<std::size_t>((c * 2 + inner_y) * 3 + inner_x)] : 255;
        REQUIRE(int{grid.pixels[static_cast<std::size_t>((c * grid.height + y) * grid.width + x)]} == expected);
      }
    }
  }
  CHECK(make_grid({images[0]}, 8, 2).pixels == images[0].pixels);
  images[3] = pattern_image(1, 2, 3, 1);
  check_error([&] { make_grid(images, 3); }, {"one size"});
  check_error([&] { make_grid({}, 3); }, {"at least one"});
}

TEST_CASE("writing a PNG where one cannot is an error that names the file") {
  check_error([] { write_png("/nonexistent-folder/image.png", pattern_image(1, 2, 2, 1)); }, {"/nonexistent-folder/image.png"});
}
