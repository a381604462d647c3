#include <torch/torch.h>

#include "metrics/frechet.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <span>

#include "checkpoint/tensor_convert.h"
#include "core/error.h"
#include "io/npz.h"

namespace uvit {
namespace {

bool all_finite(const at::Tensor& tensor) { return tensor.isfinite().all().item<bool>(); }

// F [R, D] with F^T F = sigma, R = its rank: eigenvectors times roots of the eigenvalues, those within rounding of 0 left out.
at::Tensor eigen_factor(const at::Tensor& sigma) {
  const auto [values, vectors] = at::linalg_eigh(sigma);  // ascending
  const double largest = values.abs().max().item<double>();
  if (values[0].item<double>() < -1e-6 * largest) {
    throw Error(fmt::format("sigma is no covariance: it has the eigenvalue {:.3g} (the largest is {:.3g})", values[0].item<double>(), largest));
  }
  const double rounding = static_cast<double>(sigma.size(0)) * std::numeric_limits<double>::epsilon() * largest;
  const at::Tensor kept = (values > rounding).nonzero().flatten();
  return (vectors.index_select(1, kept) * values.index_select(0, kept).sqrt()).t();
}

at::Tensor factor(const FeatureStatistics& s) {
  if (s.root.defined()) return s.root;
  const auto [lower, info] = at::linalg_cholesky_ex(s.sigma);
  if (info.item<std::int64_t>() == 0) {
    // A pivot near rounding is noise: its root would add half the digits of it to the trace.
    const at::Tensor pivots = lower.diagonal().square();
    if (pivots.min().item<double>() > 1e-12 * pivots.max().item<double>()) return lower.t();
  }
  return eigen_factor(s.sigma);
}

// Sum of the roots of a Gram matrix's eigenvalues, and a bound on what rounding does to it: an eigenvalue w is wrong by some epsilon of the largest,
// its root by that over 2 sqrt(w), and never by more than the root of the error.
std::pair<double, double> trace_of_root(const at::Tensor& gram) {
  const at::Tensor values = at::linalg_eigvalsh(gram);
  const double largest = values.abs().max().item<double>(), error = 16 * std::numeric_limits<double>::epsilon() * largest;
  if (values[0].item<double>() < -1e-6 * largest) return {0, std::numeric_limits<double>::infinity()};
  const at::Tensor roots = values.clamp_min(0).sqrt();
  if (error == 0) return {0, 0};
  return {roots.sum().item<double>(), (error / (2 * roots).clamp_min(std::sqrt(error))).sum().item<double>()};
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

void Moments::merge(const at::Tensor& rows) {
  const double before = static_cast<double>(merged_), added = static_cast<double>(rows.size(0));
  const at::Tensor mean = rows.mean(0), centred = rows - mean;
  if (merged_ == 0) {
    mean_ = mean;
    scatter_ = at::mm(centred.t(), centred);
  } else {
    const at::Tensor step = mean - mean_;
    scatter_.addmm_(centred.t(), centred).addr_(step, step, 1, before * added / (before + added));
    mean_ += step * (added / (before + added));
  }
  merged_ += rows.size(0);
}

void Moments::add(const at::Tensor& rows) {
  const torch::NoGradGuard no_grad;
  const std::int64_t dims = !kept_.empty() ? kept_.front().size(1) : mean_.defined() ? mean_.size(0) : -1;
  if (rows.dim() != 2 || rows.size(1) < 1 || (dims >= 0 && rows.size(1) != dims)) {
    throw Error(fmt::format("statistics need features [N, {}], not {}", dims < 0 ? "D" : std::to_string(dims), format_shape(rows.sizes().vec())));
  }
  if (rows.size(0) == 0) return;
  const at::Tensor x = rows.to(at::kCPU, at::kDouble);
  if (!all_finite(x)) throw Error("the features of some image are not finite");
  count_ += x.size(0);
  if (merged_ > 0) return merge(x);
  kept_.push_back(x);
  if (count_ <= x.size(1)) return;
  merge(at::cat(kept_));
  kept_.clear();
}

FeatureStatistics Moments::finish() const {
  const torch::NoGradGuard no_grad;
  if (count_ < 2) throw Error(fmt::format("statistics need the features of at least 2 images, [N, D]; there are {}", count_));
  FeatureStatistics result;
  result.num_images = count_;
  if (merged_ > 0) {
    result.mu = mean_.clone();
    result.sigma = scatter_ / static_cast<double>(count_ - 1);
    result.sigma = (result.sigma + result.sigma.t()) / 2;
    return result;
  }
  const at::Tensor x = at::cat(kept_);
  result.mu = x.mean(0);
  result.root = (x - result.mu) / std::sqrt(static_cast<double>(count_ - 1));
  result.sigma = at::mm(result.root.t(), result.root);
  return result;
}

FeatureStatistics feature_statistics(const at::Tensor& features) {
  Moments moments;
  moments.add(features);
  return moments.finish();
}

double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b) {
  const torch::NoGradGuard no_grad;
  if (a.mu.size(0) != b.mu.size(0)) {
    throw Error(fmt::format("the two sides have {} and {} feature dimensions: they come from different networks", a.mu.size(0), b.mu.size(0)));
  }
  const double rest = (a.mu - b.mu).square().sum().item<double>() + a.sigma.trace().item<double>() + b.sigma.trace().item<double>();
  const FeatureStatistics &first = b.root.defined() && !a.root.defined() ? b : a, &second = &first == &a ? b : a;  // a root is the smaller factor
  const at::Tensor left = factor(first);  // [R, D]
  if (left.size(0) == 0) return rest;
  at::Tensor product;
  if (second.root.defined()) product = at::mm(left, second.root.t());
  if (product.defined() && product.size(0) > product.size(1)) product = product.t();
  const at::Tensor gram = product.defined() ? at::mm(product, product.t()) : at::mm(at::mm(left, second.sigma), left.t());
  const auto [cross, error] = trace_of_root(gram);
  if (2 * error <= 1e-7 * (rest - 2 * cross)) return rest - 2 * cross;
  if (!product.defined()) product = at::mm(left, factor(second).t());
  return rest - 2 * (product.numel() == 0 ? 0.0 : at::linalg_svdvals(product).sum().item<double>());
}

FeatureStatistics read_statistics(const std::filesystem::path& path) {
  const TensorFile file = read_npz(path);
  const auto get = [&](std::string_view name) {
    const HostTensor* tensor = file.find(name);
    if (!tensor) throw Error(fmt::format("{} holds no '{}': statistics are an .npz with mu and sigma", path.string(), name));
    return to_torch(*tensor).to(at::kDouble);
  };
  FeatureStatistics statistics;
  statistics.mu = get("mu");
  statistics.sigma = get("sigma");
  statistics.network = text_of(file, "network");
  statistics.weights_hash = text_of(file, "weights_hash");
  statistics.preprocess = text_of(file, "preprocess");
  statistics.dataset_hash = text_of(file, "dataset_hash");
  check_statistics(statistics, path.string());
  const HostTensor* count = file.find("num_images");
  if (count && count->numel() == 1) statistics.num_images = static_cast<std::int64_t>(count->to_double()[0]);
  return statistics;
}

void write_statistics(const std::filesystem::path& path, const FeatureStatistics& statistics) {
  TensorFile file = to_tensor_file({{"mu", statistics.mu}, {"sigma", statistics.sigma}});
  file.tensors.emplace_back("num_images", to_host(at::scalar_tensor(statistics.num_images, at::kLong)));
  const std::pair<const char*, const std::string&> texts[] = {{"network", statistics.network},
                                                              {"weights_hash", statistics.weights_hash},
                                                              {"preprocess", statistics.preprocess},
                                                              {"dataset_hash", statistics.dataset_hash}};
  for (const auto& [name, text] : texts) {
    if (!text.empty()) file.tensors.emplace_back(name, text_tensor(text));
  }
  write_npz(path, file);
}

}  // namespace uvit
