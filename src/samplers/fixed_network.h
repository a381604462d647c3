#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

namespace uvit {

/// network(x [B, C, H, W], network_time [B], labels [B] or undefined) -> [B, C, H, W]
using LabelledNetwork = std::function<at::Tensor(const at::Tensor& x, const at::Tensor& network_time, const at::Tensor& labels)>;

/// The same network for batches that all have one shape. On a GPU its first pass is recorded as a CUDA graph and the others are replays: one launch
/// where there are hundreds, which for small images take longer than the arithmetic. On the CPU, and without `use_graph`, the network itself.
/// The network may not read a value back from the GPU; its weights, and autocast's copies of them, must stay where they are.
LabelledNetwork fixed_network(LabelledNetwork network, bool use_graph);

}  // namespace uvit
