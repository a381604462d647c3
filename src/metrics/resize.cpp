#include <torch/torch.h>

#include "metrics/resize.h"

#include <algorithm>
#include <array>
#include <vector>

#include "core/name_table.h"

namespace uvit {
namespace {

// F.interpolate(mode="bilinear", align_corners=False): half-pixel centres, no antialiasing, so a large image is sampled at four pixels a value.
at::Tensor pytorch_fid(const at::Tensor& x, std::int64_t height, std::int64_t width) {
  return at::upsample_bilinear2d(x, {height, width}, /*align_corners=*/false);
}

// Pillow's BICUBIC (a = -0.5, widened by the scale where it shrinks) on float channels, cut to the grey levels there are. In float64, as Pillow sums:
// float32 weights are wrong by more than a thousandth of a grey level.
at::Tensor clean_fid(const at::Tensor& x, std::int64_t height, std::int64_t width) {
  if (x.size(2) == height && x.size(3) == width) return x;
  return at::_upsample_bicubic2d_aa(x.to(at::kDouble), {height, width}, /*align_corners=*/false).clamp_(0, 255).to(at::kFloat);
}

// One axis of TensorFlow 1's resize_bilinear(align_corners=False): value i lies at i * in / out, corners on corners.
at::Tensor tf1_axis(const at::Tensor& x, std::int64_t axis, std::int64_t out) {
  const std::int64_t in = x.size(axis);
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  std::vector<std::int64_t> low, high;
  std::vector<float> part;
  for (std::int64_t i = 0; i < out; ++i) {
    const float place = static_cast<float>(i) * scale;
    low.push_back(std::min(static_cast<std::int64_t>(place), in - 1));
    high.push_back(std::min(low.back() + 1, in - 1));
    part.push_back(place - static_cast<float>(low.back()));
  }
  std::vector<std::int64_t> shape(4, 1);
  shape[static_cast<std::size_t>(axis)] = out;
  const auto on_device = [&x](const auto& values) { return torch::tensor(values).to(x.device()); };
  const at::Tensor first = x.index_select(axis, on_device(low));
  return first + (x.index_select(axis, on_device(high)) - first) * on_device(part).view(shape);
}

at::Tensor tf1(const at::Tensor& x, std::int64_t height, std::int64_t width) { return tf1_axis(tf1_axis(x, 3, width), 2, height); }

}  // namespace

std::span<const ResizeRow> resize_table() {
  static const std::array rows = {
      ResizeRow{"pytorch-fid", "bilinear without antialiasing, half-pixel centres, on float", pytorch_fid, 127.5},
      ResizeRow{"clean-fid", "Pillow's antialiased bicubic, channel by channel in float, arXiv:2104.11222", clean_fid, 128.0},
      ResizeRow{"tf1", "TensorFlow 1's bilinear, corners on corners (the first FID program, torch-fidelity)", tf1, 128.0},
  };
  return rows;
}

const ResizeRow& find_resize(const std::string& name) { return find_row(resize_table(), "resize", name); }

}  // namespace uvit
