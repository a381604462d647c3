#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace uvit {

/// Mean and covariance of features: what a Frechet distance compares. mu [D], sigma [D, D] float64, covariance with N - 1.
struct FeatureStatistics {
  at::Tensor mu, sigma;
  at::Tensor root;  ///< [N, D] with root^T root = sigma; only where there were no more images than dimensions, else undefined
  std::int64_t num_images = 0;  ///< 0: not known (a foreign .npz)
  std::string network;          ///< its name(); "": not known
  std::string weights_hash;     ///< of the network; "": not known
  std::string preprocess;       ///< of the network; "": not known
  std::string dataset_hash;     ///< content_hash of the images; "": not known, or not of a dataset
};

/// Mean and covariance of rows that come in parts, in float64 and in the memory of one covariance, however many there are.
/// While there are no more rows than dimensions they are kept, which gives the distance of few images its exact form (FeatureStatistics::root);
/// then parts are merged as Chan, Golub and LeVeque (1983) merge sums of squares about means, so no digits are lost to a large mean.
class Moments {
 public:
  /// @param rows [n, D], any floating dtype. Throws Error for another shape than before, or values that are not finite.
  void add(const at::Tensor& rows);
  std::int64_t count() const { return count_; }
  /// Throws Error for fewer than 2 rows.
  FeatureStatistics finish() const;

 private:
  void merge(const at::Tensor& rows);
  std::vector<at::Tensor> kept_;
  at::Tensor mean_, scatter_;  ///< of the merged rows: [D], and [D, D] the sum of squares about the mean
  std::int64_t count_ = 0, merged_ = 0;
};

/// Moments of all rows at once. @param features [N, D]
FeatureStatistics feature_statistics(const at::Tensor& features);

/// |mu1 - mu2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2)), in float64. With factors S = F^T F (the root, else Cholesky's, else eigenvectors times roots of
/// the eigenvalues) the last trace is the sum of the singular values of F1 F2^T. They are taken as roots of the eigenvalues of its Gram matrix
/// (with Cholesky: of L^T S2 L) where a bound on the rounding says that this costs less than 1e-7 of the distance, else by a singular value
/// decomposition, which stays exact for singular covariances and equal sides, where a matrix root loses half the digits.
/// May come out negative by rounding when both sides are equal.
/// Throws Error when the dimensions differ or a sigma has a clearly negative eigenvalue. Source: Heusel et al., arXiv:1706.08500.
double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b);

/// .npz with keys mu and sigma, as pytorch-fid writes; ours also holds num_images, and network, weights_hash,
/// preprocess and dataset_hash as bytes of UTF-8.
/// Throws Error naming the file when a key is missing, a shape is wrong, a value not finite, or sigma not symmetric.
FeatureStatistics read_statistics(const std::filesystem::path& path);
void write_statistics(const std::filesystem::path& path, const FeatureStatistics& statistics);

}  // namespace uvit
