#include <torch/torch.h>

#include "metrics/inception_score.h"

#include <fmt/format.h>

#include <cmath>

#include "core/error.h"
#include "io/host_tensor.h"

namespace uvit {

std::vector<double> inception_score(const at::Tensor& probabilities, std::int64_t splits) {
  const torch::NoGradGuard no_grad;
  if (probabilities.dim() != 2 || splits < 1 || probabilities.size(0) < splits) {
    throw Error(fmt::format("the Inception score of {} splits needs probabilities [N, K] of at least as many images, not {}", splits,
                            format_shape(probabilities.sizes().vec())));
  }
  const at::Tensor p = probabilities.to(at::kDouble);
  if (!p.isfinite().all().item<bool>() || p.min().item<double>() < 0 || (p.sum(1) - 1).abs().max().item<double>() > 1e-3)
    throw Error("the Inception score needs probabilities: finite, not negative, of sum 1 an image");
  std::vector<double> scores;
  for (std::int64_t i = 0; i < splits; ++i) {
    const std::int64_t first = i * p.size(0) / splits, last = (i + 1) * p.size(0) / splits;
    const at::Tensor part = p.slice(0, first, last), mean = part.mean(0, true);
    scores.push_back(std::exp((at::xlogy(part, part) - at::xlogy(part, mean)).sum(1).mean().item<double>()));
  }
  return scores;
}

at::Tensor class_probabilities(const at::Tensor& logits) { return at::softmax(logits.to(at::kDouble), 1); }

MeanAndDeviation mean_and_deviation(const std::vector<double>& values) {
  double sum = 0, squares = 0;
  for (const double each : values) sum += each;
  const double mean = sum / static_cast<double>(values.size());
  for (const double each : values) squares += (each - mean) * (each - mean);
  return {mean, std::sqrt(squares / static_cast<double>(values.size()))};
}

}  // namespace uvit
