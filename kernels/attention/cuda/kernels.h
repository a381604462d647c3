#pragma once
// The kernels, one function each that puts it on a stream. Each instance is compiled in a file of its own, instantiations/*.cu.
#include "kernels/attention/cuda/arguments.h"
#include "kernels/attention/cuda/tile_size.h"
#include "kernels/cuda/launch.cuh"

namespace uvit::kernels::cuda {

using Stream = ::uvit::cuda::Stream;

/// 16-bit tensors (T = bf16, f16); D and Dv up to kWidth = 64 or 128.
template <class T, int kWidth, Variant kVariant>
void launch_forward(const ForwardArguments& arguments, Stream stream);
template <class T, int kWidth, Variant kVariant>
void launch_backward(BackwardArguments arguments, Stream stream);

/// float32 tensors; the variant at run time.
void launch_forward_f32(const ForwardArguments& arguments, Variant variant, Stream stream);
void launch_backward_f32(const BackwardArguments& arguments, Variant variant, Stream stream);

/// T = bf16, f16, float.
template <class T>
void launch_prepare_rows(const RowsArguments& arguments, Stream stream);
template <class T>
void launch_prefix(const PrefixArguments& arguments, int heads, Stream stream);
void launch_weight_sums(const WeightSumArguments& arguments, Stream stream);

}  // namespace uvit::kernels::cuda
