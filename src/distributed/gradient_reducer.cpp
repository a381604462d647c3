#include <torch/torch.h>

#include "distributed/gradient_reducer.h"

#include <fmt/format.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

namespace uvit {
namespace {

constexpr std::int64_t kBucketBytes = 4 << 20;  // one of 1 to 25 MB made no difference that could be measured

}  // namespace

GradientReducer::GradientReducer(ProcessGroup& processes, std::vector<std::pair<std::string, at::Tensor>> parameters)
    : GradientSum(processes), parameters_(std::move(parameters)) {}

/// After a lost process the reducer may hold work that never ends; it goes with the process.
GradientReducer::~GradientReducer() {
  if (failed_) static_cast<void>(reducer_.release());
}

void GradientReducer::backward(const at::Tensor& loss, bool last) {
  try {
    if (reducer_ && last) {
      reducer_->prepare_for_forward();
      reducer_->rebuild_buckets();  // once, in the order in which the gradients of the step before were ready
      reducer_->prepare_for_backward({});
    }
    (loss * processes_.size()).backward();  // the reducer divides by it
    if (!reducer_ && last) {
      sum_once();
      make_buckets();
    }
  } catch (const std::exception& error) {
    failed_ = true;
    processes_.check_communication(error);
    throw;
  }
}

/// The sum over processes of the gradients that are there, as one flat tensor.
void GradientReducer::sum_once() {
  const torch::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  std::string reached;
  for (const auto& [name, parameter] : parameters_) {
    reached += parameter.grad().defined() ? '1' : '0';
    if (parameter.grad().defined()) gradients.push_back(parameter.grad());
  }
  for (const std::string& other : processes_.all_gather(reached))
    TORCH_CHECK(other == reached, "the loss reaches other parameters in this process than in another one");
  std::vector<at::Tensor> parts;
  for (const at::Tensor& gradient : gradients) parts.push_back(gradient.reshape(-1));
  at::Tensor flat = at::cat(parts);
  flat.div_(processes_.size());
  processes_.sum(flat);
  std::int64_t at = 0;
  for (at::Tensor& gradient : gradients) {
    gradient.copy_(flat.narrow(0, at, gradient.numel()).view(gradient.sizes()));
    at += gradient.numel();
  }
}

void GradientReducer::make_buckets() {
  std::vector<at::Tensor> reached;
  std::unordered_map<std::size_t, std::string> names;
  for (const auto& [name, parameter] : parameters_) {
    if (!parameter.grad().defined()) continue;
    names[reached.size()] = name;
    reached.push_back(parameter);
  }
  const std::vector<bool> sparse(reached.size(), false);
  auto [buckets, limits] =
      c10d::compute_bucket_assignment_by_size(reached, {static_cast<std::size_t>(c10d::kDefaultFirstBucketBytes), kBucketBytes}, sparse);
  std::reverse(buckets.begin(), buckets.end());
  reducer_ = std::make_unique<c10d::Reducer>(reached, buckets, processes_.handle(), sparse, kBucketBytes, /*find_unused_parameters=*/false,
                                             /*gradient_as_bucket_view=*/true, names, c10d::kDefaultFirstBucketBytes,
                                             /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<std::int64_t>{});
}

}  // namespace uvit
