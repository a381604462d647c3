#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace uvit {

/// body(inputs), of which only the inputs are kept: backward runs body again for what it needs (Chen et al., arXiv:1604.06174), under the autocast
/// settings of the first run. The body must draw no random numbers and change nothing: the second run has to repeat the first, and does bit for bit.
/// Without gradients it is body(inputs).
/// @param inputs  undefined ones are handed on as they are. At least one must want a gradient, else the body's parameters get none.
/// Double backward is not possible.
at::Tensor recompute(std::function<at::Tensor(const std::vector<at::Tensor>&)> body, const std::vector<at::Tensor>& inputs);

}  // namespace uvit
