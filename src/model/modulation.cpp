#include <torch/torch.h>

#include "model/modulation.h"

namespace uvit {

Modulation::Modulation(std::int64_t width, std::int64_t parts)
    : parts_(parts), linear_(register_module("1", std::make_shared<ZeroLinear>(width, parts * width))) {}

std::vector<at::Tensor> Modulation::forward(const at::Tensor& condition) {
  return linear_->forward(at::silu(condition)).unsqueeze(1).chunk(parts_, 2);
}

}  // namespace uvit
