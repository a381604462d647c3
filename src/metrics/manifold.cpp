#include <torch/torch.h>

#include "metrics/manifold.h"

#include <algorithm>
#include <limits>

#include "core/error.h"

namespace uvit {
namespace {

at::Tensor squared_radius(const at::Tensor& rows, std::int64_t k) { return nearest_rows(rows, rows, k, true).squared.select(1, k - 1).contiguous(); }

// distance (less) or (not greater) than radius, element by element; what rounding leaves open is computed again from the rows.
struct Compared {
  at::Tensor nearer, within;
};
Compared compare(const at::Tensor& distance, const at::Tensor& rounding, const at::Tensor& radius, const at::Tensor& real, const at::Tensor& generated,
                 std::int64_t first_real, std::int64_t first_generated) {
  at::Tensor exact = distance;
  const at::Tensor open = ((distance - radius).abs() <= rounding).nonzero();
  if (open.size(0) > 0) {
    const at::Tensor rows = open + torch::tensor(std::vector<std::int64_t>{first_real, first_generated});
    exact = distance.index_put({open.select(1, 0), open.select(1, 1)}, pair_distances(real, generated, rows));
  }
  return {exact < radius, exact <= radius};
}

Image fit_to(const Image& image, const Image& like) {
  const Image same = convert_channels(image, like.channels);
  if (same.height == like.height && same.width == like.width) return same;
  const at::Tensor pixels = torch::from_blob(const_cast<std::uint8_t*>(same.pixels.data()), {1, same.channels, same.height, same.width}, at::kByte);
  const at::Tensor resized = at::_upsample_bilinear2d_aa(pixels.to(at::kFloat), {like.height, like.width}, false).round_().clamp_(0, 255).to(at::kByte);
  const std::uint8_t* data = resized.const_data_ptr<std::uint8_t>();
  return {like.channels, like.height, like.width, {data, data + resized.numel()}};
}

}  // namespace

ManifoldScores manifold_scores(const at::Tensor& real, const at::Tensor& generated, std::int64_t k_precision, std::int64_t k_density) {
  const torch::NoGradGuard no_grad;
  check_feature_rows(real, generated, "precision and recall");
  const std::int64_t n = real.size(0), m = generated.size(0);
  const at::Tensor real_wide = squared_radius(real, k_precision), real_dense = squared_radius(real, k_density),
                   generated_wide = squared_radius(generated, k_precision);
  const at::Tensor precise = at::zeros({m}, at::kBool), recalled = at::zeros({n}, at::kBool), covered = at::zeros({n}, at::kBool);
  double inside = 0;
  for_each_distance_block(real, generated, [&](std::int64_t i, std::int64_t j, const at::Tensor& distance, const at::Tensor& rounding) {
    const std::int64_t rows = distance.size(0), columns = distance.size(1);
    const auto against = [&](const at::Tensor& radius) { return compare(distance, rounding, radius, real, generated, i, j); };
    precise.narrow(0, j, columns).logical_or_(against(real_wide.narrow(0, i, rows).unsqueeze(1)).within.any(0));
    recalled.narrow(0, i, rows).logical_or_(against(generated_wide.narrow(0, j, columns).unsqueeze(0)).within.any(1));
    const at::Tensor nearer = against(real_dense.narrow(0, i, rows).unsqueeze(1)).nearer;
    covered.narrow(0, i, rows).logical_or_(nearer.any(1));
    inside += nearer.sum().item<double>();
  });
  const auto share = [](const at::Tensor& flags) { return flags.to(at::kDouble).mean().item<double>(); };
  return {share(precise), share(recalled), inside / static_cast<double>(k_density * m), share(covered)};
}

Memorisation memorisation(const at::Tensor& real, const at::Tensor& generated, std::int64_t neighbours) {
  const torch::NoGradGuard no_grad;
  check_feature_rows(real, generated, "memorisation");
  const at::Tensor own = squared_radius(real, 1);
  Memorisation found{0, {}, {}, nearest_rows(generated, real, std::min(neighbours, real.size(0)), false)};
  const at::Tensor nearest = found.neighbours.squared.select(1, 0), theirs = own.index_select(0, found.neighbours.index.select(1, 0));
  found.authentic = (nearest > theirs).to(at::kDouble).mean().item<double>();
  found.ratio = at::where(nearest == 0, at::zeros_like(nearest), (nearest / theirs).sqrt());
  found.order = std::get<1>(found.ratio.sort(/*stable=*/std::optional<bool>(true), 0, /*descending=*/false));
  return found;
}

Image memorisation_picture(const Memorisation& found, const ImageSource& real, const ImageSource& generated, std::int64_t count) {
  std::vector<Image> cells;
  const std::int64_t columns = found.neighbours.index.size(1);
  for (std::int64_t row = 0; row < std::min(count, found.order.size(0)); ++row) {
    const std::int64_t image = found.order[row].item<std::int64_t>();
    const Image first = generated.read(image);
    cells.push_back(cells.empty() ? first : fit_to(first, cells.front()));
    for (std::int64_t k = 0; k < columns; ++k) cells.push_back(fit_to(real.read(found.neighbours.index[image][k].item<std::int64_t>()), cells.front()));
  }
  return make_grid(cells, columns + 1);
}

}  // namespace uvit
