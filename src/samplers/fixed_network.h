#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

namespace uvit {

/// network(x [B, C, H, W], network_time [B], labels [B] or undefined) -> [B, C, H, W]
using LabelledNetwork = std::function<at::Tensor(const at::Tensor& x, const at::Tensor& network_time, const at::Tensor& labels)>;

/// The same network for batches of few different sizes. On a GPU its first pass of each is recorded as a CUDA graph and the others are replays: one
/// launch where there are hundreds, which for small images take longer than the arithmetic. On the CPU, without `use_graph`, and
/// where the environment has UVIT_CUDA_GRAPH=0, the network itself.
/// The network may not read a value back from the GPU; image shape and autocast stay as in the first pass, and weights where they are.
LabelledNetwork fixed_network(LabelledNetwork network, bool use_graph);

}  // namespace uvit
