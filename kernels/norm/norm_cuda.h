#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/attention/params.h"

namespace uvit::kernels {

// Two passes over tokens that would otherwise be several, for NVIDIA GPUs of compute capability 8.0 or newer. All pointers are device memory, rows
// are contiguous and 16-byte aligned. A call only enqueues kernels on `stream` (a cudaStream_t; null: the default stream). Sums are float32, taken in
// an order that depends on the sizes alone: results are bit-equal from run to run. std::invalid_argument names a size or dtype that is not
// supported, std::runtime_error a launch that CUDA refuses.

/// Widths that the kernels take: multiples of 4, up to 3072 (a row lies in shared memory) and up to 65536.
bool add_layer_norm_supported_cuda(std::int64_t width);
bool bias_gelu_supported_cuda(std::int64_t width);

/// The end of one residual branch and the norm before the next:
///   sum = x + branch      y = (sum - mean(sum)) rstd weight + bias,   rstd = 1 / sqrt(var(sum) + eps),   over the width of each row
/// var is mean((sum - mean)^2), in a second pass over the row in shared memory.
/// `stream_dtype` is that of x, sum, dsum and dx: float32 under autocast. `branch_dtype`, that of branch, y, dy and dbranch, is the same, or a 16-bit
/// one beside float32.
struct AddLayerNormParams {
  std::int64_t rows = 0, width = 0;
  Dtype stream_dtype = Dtype::f32, branch_dtype = Dtype::f32;
  float eps = 1e-5F;
  const void* x = nullptr;
  const void* branch = nullptr;  ///< null: sum is x, and `sum` is not written
  void* sum = nullptr;           ///< may be x itself
  void* y = nullptr;
  const float* weight = nullptr;  ///< [width]
  const float* bias = nullptr;    ///< [width]; forward only
  float* mean = nullptr;          ///< [rows], with rstd what backward needs; forward leaves both out where null
  float* rstd = nullptr;
};
void add_layer_norm_forward_cuda(const AddLayerNormParams& params, void* stream);

/// Gradients of the above, g = dy weight, n = (sum - mean) rstd:
///   dx = dbranch = rstd (g - mean(g) - n mean(g n)) + dsum      dweight = sum over rows of dy n      dbias = sum over rows of dy
/// Reads rows, width, dtypes, weight, mean and rstd of `params`, and params.sum (params.x where there was no branch).
struct AddLayerNormGradients {
  const void* dy = nullptr;
  const void* dsum = nullptr;  ///< null: zero
  void* dx = nullptr;
  void* dbranch = nullptr;  ///< null: not wanted, or dx serves, being of the same dtype
  float* dweight = nullptr;
  float* dbias = nullptr;
};
/// @param workspace  device memory of column_sums_workspace_cuda(rows, width) bytes
void add_layer_norm_backward_cuda(const AddLayerNormParams& params, const AddLayerNormGradients& gradients, void* workspace, void* stream);

/// y = gelu(x + bias), gelu(u) = u Phi(u), Phi(u) = (1 + erf(u / sqrt 2)) / 2. x, y [rows, width] of one dtype, bias [width].
/// Backward: dx = dy (Phi(u) + u phi(u)), dbias = sum over rows of dx (before it is rounded).
struct BiasGeluParams {
  std::int64_t rows = 0, width = 0;
  Dtype dtype = Dtype::f32;
  const void* x = nullptr;
  const float* bias = nullptr;
  void* y = nullptr;         ///< forward
  const void* dy = nullptr;  ///< backward
  void* dx = nullptr;        ///< may be dy
  float* dbias = nullptr;
};
void bias_gelu_forward_cuda(const BiasGeluParams& params, void* stream);
/// @param workspace  as above
void bias_gelu_backward_cuda(const BiasGeluParams& params, void* workspace, void* stream);

/// Bytes: two floats a column for each block of rows.
std::size_t column_sums_workspace_cuda(std::int64_t rows, std::int64_t width);

}  // namespace uvit::kernels
