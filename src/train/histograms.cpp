#include <torch/torch.h>

#include "train/histograms.h"

namespace uvit {
namespace {

constexpr std::int64_t kBuckets = 64;

bool is_block_matrix(const std::string& name, const at::Tensor& parameter) { return parameter.dim() >= 2 && name.find("_block") != std::string::npos; }

}  // namespace

Histogram make_histogram(const at::Tensor& tensor) {
  const torch::NoGradGuard no_grad;
  at::Tensor values = tensor.detach().flatten().to(at::kFloat);
  values = values.masked_select(values.isfinite());
  if (values.numel() == 0) return {.limits = {0}, .counts = {0}};
  Histogram histogram;
  histogram.min = values.min().item<double>();
  histogram.max = values.max().item<double>();
  histogram.num = static_cast<double>(values.numel());
  histogram.sum = values.sum(at::kDouble).item<double>();
  histogram.sum_squares = values.to(at::kDouble).square().sum().item<double>();
  if (histogram.min == histogram.max) {
    histogram.limits = {histogram.max};
    histogram.counts = {histogram.num};
    return histogram;
  }
  const at::Tensor counts = at::histc(values, kBuckets, histogram.min, histogram.max).to(at::kCPU, at::kDouble);
  const double width = (histogram.max - histogram.min) / kBuckets;
  for (std::int64_t i = 0; i < kBuckets; ++i) {
    histogram.limits.push_back(i + 1 < kBuckets ? histogram.min + static_cast<double>(i + 1) * width : histogram.max);
    histogram.counts.push_back(counts[i].item<double>());
  }
  return histogram;
}

void add_histograms(EventFile& events, std::int64_t step, const NamedTensors& parameters) {
  for (const auto& [name, parameter] : parameters) {
    if (!is_block_matrix(name, parameter)) continue;
    events.add_histogram("weights/" + name, step, make_histogram(parameter));
    if (parameter.grad().defined()) events.add_histogram("gradients/" + name, step, make_histogram(parameter.grad()));
  }
}

}  // namespace uvit
