#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "data/image_io.h"
#include "metrics/distances.h"
#include "metrics/feature_set.h"

namespace uvit {

/// Shares in [0, 1], density from 0 on; each is better when larger. Euclidean distances in float64; r_k(i) is that to the k-th neighbour other than itself.
struct ManifoldScores {
  double precision;  ///< generated images within r_k of some real one, k = `k_precision`; arXiv:1904.06991
  double recall;     ///< real images within r_k of some generated one
  double density;    ///< mean over generated images of the number of real ones nearer than r_k of that real one, over k = `k_density`; arXiv:2002.09797
  double coverage;   ///< real images with a generated one nearer than r_k
};
/// By blocks; no N x N in memory. A distance that rounding cannot tell from a radius is computed again exactly, so duplicates count as equal.
/// @param real [N, D] @param generated [M, D]. Throws Error where a side has no k neighbours, or features are not finite.
ManifoldScores manifold_scores(const at::Tensor& real, const at::Tensor& generated, std::int64_t k_precision = 3, std::int64_t k_density = 5);

/// How near generated images come to training images.
struct Memorisation {
  double authentic;      ///< share of generated images farther from their nearest real image than that one is from its own nearest; arXiv:2102.08921
  at::Tensor order;      ///< int64 [M]: generated images, the most suspicious first, by the ratio of those two distances
  at::Tensor ratio;      ///< float64 [M], of each generated image; 0 for a copy; infinite where only the real image has a duplicate
  Neighbours neighbours;  ///< of each generated image among the real ones
};
/// @param neighbours nearest real images kept of each generated one, at most as many as there are
Memorisation memorisation(const at::Tensor& real, const at::Tensor& generated, std::int64_t neighbours = 3);

/// One row an image: the generated image, then its nearest real ones; the `count` most suspicious. All are brought to the size of the first.
Image memorisation_picture(const Memorisation& found, const ImageSource& real, const ImageSource& generated, std::int64_t count = 8);

}  // namespace uvit
