#include <torch/torch.h>

#include <fmt/format.h>

#include "core/error.h"
#include "train/ema.h"
#include "train/fused_loop.h"

namespace uvit {

Ema::Ema(EmaProfile profile, const NamedTensors& parameters) : profile_(std::move(profile)), rate_(profile_.rate(1)) {
  for (const auto& [name, parameter] : parameters) average_.emplace_back(name, parameter.detach().clone(at::MemoryFormat::Contiguous));
}

void Ema::update(const NamedTensors& parameters) {
  TORCH_CHECK(parameters.size() == average_.size(), "Ema::update: ", parameters.size(), " parameters for ", average_.size(), " averages");
  for (std::size_t i = 0; i < parameters.size(); ++i) update_one(i, parameters[i].second);
}

void Ema::update_one(std::size_t i, const at::Tensor& parameter) {
  const torch::NoGradGuard no_grad;
  at::Tensor& average = average_[i].second;
  const at::Tensor values = parameter.detach().contiguous();
  if (!average.is_cpu()) {
    average.mul_(rate_).add_(values, 1 - rate_);
    return;
  }
  AT_DISPATCH_FLOATING_TYPES(average.scalar_type(), "ema", [&] {
    const AveragePass<scalar_t> pass(average, rate_);
    const scalar_t* p = values.const_data_ptr<scalar_t>();
    for_each_range(average.numel(), [=](std::int64_t begin, std::int64_t end) { pass(p, begin, end); });
  });
}

void Ema::load(const NamedTensors& saved) {
  if (saved.size() != average_.size())
    throw Error(fmt::format("EMA {} of the checkpoint has {} parameters, and the model has {}", profile(), saved.size(), average_.size()));
  for (std::size_t i = 0; i < saved.size(); ++i) copy_named(saved, average_[i].first, average_[i].second);
}

}  // namespace uvit
