#include <torch/torch.h>

#include "metrics/resize.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "io/safetensors.h"
#include "support/fixtures.h"
#include "support/scratch.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

at::Tensor noise(std::int64_t height, std::int64_t width) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<std::uint64_t>(height * 1000 + width));
  return at::randint(0, 256, {2, 3, height, width}, generator).to(at::kFloat);
}

/// Bilinear by its formula, pixel by pixel: output (i, j) lies at (place(i), place(j)) of the source, cut to it.
template <class Place>
at::Tensor bilinear(const at::Tensor& x, std::int64_t height, std::int64_t width, const Place& place) {
  const at::Tensor out = at::empty({x.size(0), x.size(1), height, width}, at::kDouble), source = x.to(at::kDouble).contiguous();
  const auto from = source.accessor<double, 4>();
  auto to = out.accessor<double, 4>();
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t z = 0; z < width; ++z) {
      const double v = std::max(0.0, place(y, x.size(2), height)), u = std::max(0.0, place(z, x.size(3), width));
      const auto top = static_cast<std::int64_t>(v), left = static_cast<std::int64_t>(u);
      const std::int64_t bottom = std::min(top + 1, x.size(2) - 1), right = std::min(left + 1, x.size(3) - 1);
      const double down = v - static_cast<double>(top), across = u - static_cast<double>(left);
      for (std::int64_t n = 0; n < x.size(0); ++n) {
        for (std::int64_t c = 0; c < x.size(1); ++c) {
          to[n][c][y][z] = (1 - down) * ((1 - across) * from[n][c][top][left] + across * from[n][c][top][right]) +
                           down * ((1 - across) * from[n][c][bottom][left] + across * from[n][c][bottom][right]);
        }
      }
    }
  }
  return out;
}

}  // namespace

TEST_CASE("clean-fid's resize is Pillow's to a thousandth of a grey level") {
  const TensorFile file = read_safetensors(fixtures() / "fid_resize_clean.safetensors");
  int sizes = 0;
  for (const auto& [name, tensor] : file.tensors) {
    if (!name.starts_with("image_")) continue;
    const at::Tensor image = to_torch(tensor).permute({2, 0, 1}).unsqueeze(0).to(at::kFloat).contiguous();
    const at::Tensor rows = find_resize("clean-fid").resize(image, 299, 299)[0].permute({1, 2, 0}).slice(0, 0, 299, 4);
    check_tensor(name, rows, to_torch(file.at("clean_299_rows4_" + name.substr(6))), 1e-3);
    ++sizes;
  }
  CHECK(sizes >= 2);
}

TEST_CASE("pytorch-fid's and TensorFlow 1's bilinear resizes are their formulas") {
  const auto half_pixel = [](std::int64_t i, std::int64_t in, std::int64_t out) {
    return (static_cast<double>(i) + 0.5) * static_cast<double>(in) / static_cast<double>(out) - 0.5;
  };
  const auto corner = [](std::int64_t i, std::int64_t in, std::int64_t out) { return static_cast<double>(i) * static_cast<double>(in) / static_cast<double>(out); };
  const std::vector<std::pair<std::int64_t, std::int64_t>> sizes = {{32, 32}, {5, 17}, {1, 1}, {60, 41}, {299, 299}};
  for (const auto& [height, width] : sizes) {
    INFO(height << " x " << width);
    const at::Tensor x = noise(height, width);
    const double budget = 255 * 3e-7 * static_cast<double>(std::max<std::int64_t>(height, 16));  // places are float32: off by 1e-7 of the side
    check_tensor("pytorch-fid", find_resize("pytorch-fid").resize(x, 47, 53), bilinear(x, 47, 53, half_pixel), budget);
    check_tensor("tf1", find_resize("tf1").resize(x, 47, 53), bilinear(x, 47, 53, corner), budget);
  }
  CHECK(max_abs(find_resize("tf1").resize(noise(32, 32), 47, 53) - bilinear(noise(32, 32), 47, 53, half_pixel)) > 1);
}

TEST_CASE("every resize keeps a flat image flat and its own size as it is") {
  for (const ResizeRow& row : resize_table()) {
    INFO(row.name);
    check_tensor("flat", row.resize(at::full({1, 3, 20, 9}, 77.0f), 31, 5), at::full({1, 3, 31, 5}, 77.0f), 1e-4);
    const at::Tensor x = noise(13, 8);
    check_tensor("itself", row.resize(x, 13, 8), x, 1e-4);
  }
  CHECK_THAT(error_of([] { find_resize("tf2"); }), Catch::Contains("'tf1'"));
}
