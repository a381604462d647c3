#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace uvit {

/// Inception score of each split: exp(mean over its rows of sum_c p_c (ln p_c - ln mean p_c)), 0 ln 0 = 0, in float64. Split i is the rows
/// [i N / splits, (i + 1) N / splits), in their order. @param probabilities [N, K]
/// Throws Error for fewer rows than splits, or rows that are no probabilities. Source: arXiv:1606.03498.
std::vector<double> inception_score(const at::Tensor& probabilities, std::int64_t splits);

/// softmax of class scores [N, K] in float64.
at::Tensor class_probabilities(const at::Tensor& logits);

struct MeanAndDeviation {
  double mean, deviation;  ///< population standard deviation
};
MeanAndDeviation mean_and_deviation(const std::vector<double>& values);

}  // namespace uvit
