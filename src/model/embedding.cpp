#include <torch/torch.h>

#include <cmath>

#include "model/uvit.h"

namespace uvit {

at::Tensor timestep_frequencies(std::int64_t dim) {
  const std::int64_t half = dim / 2;
  return at::exp(at::arange(half, at::TensorOptions().dtype(at::kFloat)).mul(-std::log(10000.0)).div(static_cast<double>(half)));
}

at::Tensor timestep_embedding(const at::Tensor& t, const at::Tensor& frequencies, std::int64_t dim) {
  const at::Tensor angles = t.to(at::kFloat).unsqueeze(1) * frequencies.to(t.device()).unsqueeze(0);
  const at::Tensor table = at::cat({angles.cos(), angles.sin()}, 1);
  return dim % 2 == 1 ? at::constant_pad_nd(table, {0, 1}) : table;
}

at::Tensor timestep_embedding(const at::Tensor& t, std::int64_t dim) { return timestep_embedding(t, timestep_frequencies(dim), dim); }

at::Tensor patchify(const at::Tensor& image, std::int64_t patch_size) {
  const std::int64_t batch = image.size(0), channels = image.size(1), rows = image.size(2) / patch_size, columns = image.size(3) / patch_size;
  return image.reshape({batch, channels, rows, patch_size, columns, patch_size})
      .permute({0, 2, 4, 1, 3, 5})
      .reshape({batch, rows * columns, channels * patch_size * patch_size});
}

at::Tensor interpolate_pos_embed(const at::Tensor& pos_embed, std::int64_t rows, std::int64_t columns, std::int64_t new_rows,
                                 std::int64_t new_columns) {
  const std::int64_t extras = pos_embed.size(1) - rows * columns, width = pos_embed.size(2);
  const at::Tensor grid = pos_embed.narrow(1, extras, rows * columns).reshape({1, rows, columns, width}).permute({0, 3, 1, 2});
  const at::Tensor resized = at::upsample_bicubic2d(grid, {new_rows, new_columns}, /*align_corners=*/false);
  return at::cat({pos_embed.narrow(1, 0, extras), resized.flatten(2).transpose(1, 2)}, 1);
}

at::Tensor unpatchify(const at::Tensor& tokens, std::int64_t channels, std::int64_t height, std::int64_t width, std::int64_t patch_size) {
  const std::int64_t batch = tokens.size(0), rows = height / patch_size, columns = width / patch_size;
  return tokens.reshape({batch, rows, columns, patch_size, patch_size, channels})
      .permute({0, 5, 1, 3, 2, 4})
      .reshape({batch, channels, height, width});
}

}  // namespace uvit
