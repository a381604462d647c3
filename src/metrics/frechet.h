#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>

namespace uvit {

/// Mean and covariance of features: what a Frechet distance compares. mu [D], sigma [D, D] float64, covariance with N - 1.
struct FeatureStatistics {
  at::Tensor mu, sigma;
  std::int64_t num_images = 0;  ///< 0: not known (a foreign .npz)
};

/// @param features [N, D]. Throws Error for N < 2 or values that are not finite.
FeatureStatistics feature_statistics(const at::Tensor& features);

/// |mu1 - mu2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)), the last from the eigenvalues of S1^(1/2) S2 S1^(1/2), in float64; tiny negative eigenvalues
/// count as 0. Throws Error when the dimensions differ. Source: Heusel et al., arXiv:1706.08500.
double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b);

/// .npz with keys mu and sigma, as pytorch-fid writes; ours also holds num_images, network and weights_hash.
FeatureStatistics read_statistics(const std::filesystem::path& path);
void write_statistics(const std::filesystem::path& path, const FeatureStatistics& statistics);

}  // namespace uvit
