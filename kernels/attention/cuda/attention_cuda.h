#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/attention/params.h"

namespace uvit::kernels {

/// Fused attention on an NVIDIA GPU of compute capability 8.0 or newer; the same operator as attention_cpu.h, formulas and limits in
/// kernels/README.md. Every pointer of `params` is device memory. Sums, exponentials and signs are float32; float32 tensors are multiplied in
/// float32, never TF32. Results are bit-equal from run to run: no atomics.
///
/// A call only enqueues kernels on `stream` (a cudaStream_t; null is the default stream) of the current device: it allocates nothing and never waits,
/// so it can be captured in a CUDA graph. `workspace` is device memory of at least the bytes that the _workspace function gives for the same params
/// (null where that is 0), aligned to 256 bytes; it may be reused once the call's work on the stream is done.
/// @throws std::invalid_argument naming the field, when a size is not supported, a pointer that the kind needs is null, or a row of a 16-bit tensor
///         does not begin at a multiple of 16 bytes (attention_cuda_takes); std::runtime_error when a kernel cannot be launched.
void attention_forward_cuda(const AttentionParams& params, void* workspace, void* stream);
void attention_backward_cuda(const AttentionParams& params, void* workspace, void* stream);

/// Bytes of workspace. They depend on kind, causal, dtype, B, H, L, Lk, D and Dv, and on whether params.parts is null.
std::size_t attention_forward_cuda_workspace(const AttentionParams& params);
std::size_t attention_backward_cuda_workspace(const AttentionParams& params);

/// Floats of AttentionParams::parts: 2 B H L Dv for kinds with two normalisers, else 0. Forward writes it and backward reads it when not null;
/// without it backward computes both halves of the output again.
std::int64_t attention_parts_floats_cuda(const AttentionParams& params);

/// Whether the kernels take tensors laid out like this: every row of a 16-bit tensor begins at a multiple of 16 bytes. Where not, copy it first.
bool attention_cuda_takes(const View& view, Dtype dtype);
bool attention_cuda_takes(const MutableView& view, Dtype dtype);

}  // namespace uvit::kernels
