#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>

namespace uvit {

/// Mean and covariance of features: what a Frechet distance compares. mu [D], sigma [D, D] float64, covariance with N - 1.
struct FeatureStatistics {
  at::Tensor mu, sigma;
  std::int64_t num_images = 0;  ///< 0: not known (a foreign .npz)
  std::string network;          ///< row of the feature network table; "": not known
  std::string weights_hash;     ///< of the network; "": not known
  std::string dataset_hash;     ///< content_hash of the images; "": not known, or not of a dataset
};

/// @param features [N, D]. Throws Error for N < 2 or values that are not finite.
FeatureStatistics feature_statistics(const at::Tensor& features);

/// |mu1 - mu2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)), in float64. With S = A A^T (A: eigenvectors times roots of the eigenvalues) the last trace
/// is the sum of the singular values of A1^T A2, which stays exact to rounding for singular covariances (fewer images than dimensions), where a
/// matrix root loses half the digits. Eigenvalues within rounding of 0 count as 0. May come out negative by rounding when both sides are equal.
/// Throws Error when the dimensions differ or a sigma has a clearly negative eigenvalue. Source: Heusel et al., arXiv:1706.08500.
double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b);

/// .npz with keys mu and sigma, as pytorch-fid writes; ours also holds num_images, and network, weights_hash and dataset_hash as bytes of UTF-8.
/// Throws Error naming the file when a key is missing, a shape is wrong, a value not finite, or sigma not symmetric.
FeatureStatistics read_statistics(const std::filesystem::path& path);
void write_statistics(const std::filesystem::path& path, const FeatureStatistics& statistics);

}  // namespace uvit
