#include <torch/torch.h>

#include "metrics/frechet.h"

#include <fmt/format.h>

#include <limits>
#include <span>

#include "checkpoint/tensor_convert.h"
#include "core/error.h"
#include "io/npz.h"

namespace uvit {
namespace {

bool all_finite(const at::Tensor& tensor) { return tensor.isfinite().all().item<bool>(); }

// A [D, R] with A A^T = sigma, R = its rank.
at::Tensor root_factor(const at::Tensor& sigma) {
  const auto [values, vectors] = at::linalg_eigh(sigma);  // ascending
  const double largest = values.abs().max().item<double>();
  if (values[0].item<double>() < -1e-6 * largest) {
    throw Error(fmt::format("sigma is no covariance: it has the eigenvalue {:.3g} (the largest is {:.3g})", values[0].item<double>(), largest));
  }
  const double rounding = static_cast<double>(sigma.size(0)) * std::numeric_limits<double>::epsilon() * largest;
  const at::Tensor kept = (values > rounding).nonzero().flatten();
  return vectors.index_select(1, kept) * values.index_select(0, kept).sqrt();
}

HostTensor text_tensor(const std::string& text) {
  HostTensor tensor{DType::u8, {static_cast<std::int64_t>(text.size())}, {}};
  const auto bytes = std::as_bytes(std::span(text));
  tensor.data.assign(bytes.begin(), bytes.end());
  return tensor;
}

std::string text_of(const TensorFile& file, std::string_view name) {
  const HostTensor* tensor = file.find(name);
  if (!tensor || tensor->dtype != DType::u8) return "";
  return {reinterpret_cast<const char*>(tensor->data.data()), tensor->data.size()};
}

void check_statistics(const FeatureStatistics& s, const std::string& origin) {
  if (s.mu.dim() != 1 || s.mu.size(0) < 1 || s.sigma.dim() != 2 || s.sigma.size(0) != s.mu.size(0) || s.sigma.size(1) != s.mu.size(0)) {
    throw Error(fmt::format("{}: mu {} and sigma {} should have shapes [D] and [D, D]", origin, format_shape(s.mu.sizes().vec()),
                            format_shape(s.sigma.sizes().vec())));
  }
  if (!all_finite(s.mu) || !all_finite(s.sigma)) throw Error(fmt::format("{}: mu or sigma holds values that are not finite", origin));
  const double asymmetry = (s.sigma - s.sigma.t()).abs().max().item<double>();
  if (asymmetry > 1e-6 * s.sigma.abs().max().item<double>()) throw Error(fmt::format("{}: sigma is not symmetric, so no covariance", origin));
}

}  // namespace

FeatureStatistics feature_statistics(const at::Tensor& features) {
  const c10::InferenceMode no_grad;
  if (features.dim() != 2 || features.size(0) < 2) {
    throw Error(fmt::format("statistics need the features of at least 2 images, [N, D], not {}", format_shape(features.sizes().vec())));
  }
  const at::Tensor x = features.to(at::kCPU, at::kDouble);
  if (!all_finite(x)) throw Error("the features of some image are not finite");
  const at::Tensor mu = x.mean(0), centred = x - mu;
  return {mu, at::mm(centred.t(), centred) / static_cast<double>(x.size(0) - 1), x.size(0), "", "", ""};
}

double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b) {
  const c10::InferenceMode no_grad;
  if (a.mu.size(0) != b.mu.size(0)) {
    throw Error(fmt::format("the two sides have {} and {} feature dimensions: they come from different networks", a.mu.size(0), b.mu.size(0)));
  }
  const double mean_term = (a.mu - b.mu).square().sum().item<double>();
  const double traces = a.sigma.trace().item<double>() + b.sigma.trace().item<double>();
  const at::Tensor product = at::mm(root_factor(a.sigma).t(), root_factor(b.sigma));
  const double cross = product.numel() == 0 ? 0.0 : at::linalg_svdvals(product).sum().item<double>();
  return mean_term + traces - 2 * cross;
}

FeatureStatistics read_statistics(const std::filesystem::path& path) {
  const TensorFile file = read_npz(path);
  const auto get = [&](std::string_view name) {
    const HostTensor* tensor = file.find(name);
    if (!tensor) throw Error(fmt::format("{} holds no '{}': statistics are an .npz with mu and sigma", path.string(), name));
    return to_torch(*tensor).to(at::kDouble);
  };
  FeatureStatistics statistics{get("mu"), get("sigma"), 0, text_of(file, "network"), text_of(file, "weights_hash"), text_of(file, "dataset_hash")};
  check_statistics(statistics, path.string());
  const HostTensor* count = file.find("num_images");
  if (count && count->numel() == 1) statistics.num_images = static_cast<std::int64_t>(count->to_double()[0]);
  return statistics;
}

void write_statistics(const std::filesystem::path& path, const FeatureStatistics& statistics) {
  TensorFile file = to_tensor_file({{"mu", statistics.mu}, {"sigma", statistics.sigma}});
  file.tensors.emplace_back("num_images", to_host(at::scalar_tensor(statistics.num_images, at::kLong)));
  const std::pair<const char*, const std::string&> texts[] = {
      {"network", statistics.network}, {"weights_hash", statistics.weights_hash}, {"dataset_hash", statistics.dataset_hash}};
  for (const auto& [name, text] : texts) {
    if (!text.empty()) file.tensors.emplace_back(name, text_tensor(text));
  }
  write_npz(path, file);
}

}  // namespace uvit
