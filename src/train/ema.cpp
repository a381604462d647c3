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
  const torch::NoGradGuard no_grad;
  TORCH_CHECK(parameters.size() == average_.size(), "Ema::update: ", parameters.size(), " parameters for ", average_.size(), " averages");
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    at::Tensor& average = average_[i].second;
    const at::Tensor parameter = parameters[i].second.detach().contiguous();
    if (!average.is_cpu()) {
      average.mul_(rate_).add_(parameter, 1 - rate_);
      continue;
    }
    AT_DISPATCH_FLOATING_TYPES(average.scalar_type(), "ema", [&] {
      const auto rate = static_cast<scalar_t>(rate_), rest = static_cast<scalar_t>(1 - rate_);
      scalar_t* e = average.data_ptr<scalar_t>();
      const scalar_t* p = parameter.const_data_ptr<scalar_t>();
      for_each_range(average.numel(), [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t j = begin; j < end; ++j) e[j] = rate * e[j] + rest * p[j];
      });
    });
  }
}

void Ema::load(const NamedTensors& saved) {
  if (saved.size() != average_.size())
    throw Error(fmt::format("EMA {} of the checkpoint has {} parameters, and the model has {}", profile(), saved.size(), average_.size()));
  for (std::size_t i = 0; i < saved.size(); ++i) copy_named(saved, average_[i].first, average_[i].second);
}

}  // namespace uvit
