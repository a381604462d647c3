#pragma once
#include "checkpoint/tensor_convert.h"
#include "io/event_file.h"

namespace uvit {

/// 64 equal buckets from the least to the greatest value; values that are not finite are left out.
Histogram make_histogram(const at::Tensor& tensor);

/// Writes weights/<name> and gradients/<name> of the matrices in the blocks of the network; gradients as the parameters hold them after the step,
/// clipped on the CPU.
void add_histograms(EventFile& events, std::int64_t step, const NamedTensors& parameters);

}  // namespace uvit
