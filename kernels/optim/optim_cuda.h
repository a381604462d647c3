#pragma once
#include <cstddef>
#include <cstdint>

namespace uvit::kernels {

// The optimizer step over all parameters at once, for NVIDIA GPUs of compute capability 8.0 or newer: three launches whatever the number of tensors.
// All pointers, those inside the tables too, are device memory; everything is float32. Calls only enqueue kernels on `stream` (a cudaStream_t).
// Results are bit-equal from run to run. std::runtime_error: a launch that CUDA refuses.

inline constexpr int kMostAverages = 4;

/// One parameter with what belongs to it: contiguous arrays of `size` floats.
struct OptimTensor {
  float* parameter = nullptr;
  const float* gradient = nullptr;  ///< null: took no part in the loss; parameter and moments stay
  float *exp_avg = nullptr, *exp_avg_sq = nullptr;
  float* averages[kMostAverages] = {};  ///< EMA profiles; the first AdamWFactors::num_averages are used
  std::int64_t size = 0;
  float keep = 1;  ///< 1 - lr * weight_decay, 1 for a parameter without decay
  float unused = 0;
};

/// A piece of a tensor that one block works on: elements [first, first + kOptimChunk) as far as there are any.
struct OptimChunk {
  std::int32_t tensor = 0, unused = 0;
  std::int64_t first = 0;
};
inline constexpr std::int64_t kOptimChunk = 8192;

struct OptimTable {
  const OptimTensor* tensors = nullptr;
  const OptimChunk* chunks = nullptr;
  std::int32_t num_chunks = 0;
};

/// Factors of step k = 1, 2, ..., computed in double on the host and rounded once.
struct AdamWFactors {
  float mix1 = 0, beta2 = 0, mix2 = 0;  ///< 1 - beta1, beta2, 1 - beta2
  float minus_rate = 0;                 ///< -lr / (1 - beta1^k)
  float correction2 = 1;                ///< sqrt(1 - beta2^k)
  float eps = 0;
  int num_averages = 0;
  float average_keep[kMostAverages] = {}, average_mix[kMostAverages] = {};  ///< EMA rate r and 1 - r
};

/// What the gradients say of themselves. norm: of the gradients times `unscale`, the loss scale's inverse. factor: what the update multiplies them
/// by, unscale * min(1, max_norm / (norm + 1e-6)) (max_norm 0: unscale), and NaN where the norm is not finite.
struct GradientFacts {
  double norm = 0;
  float factor = 1, unused = 0;
};

/// facts = the above of all gradients; squares are added in double. @param partial  [num_chunks] doubles of workspace
void gradient_facts_cuda(const OptimTable& table, double unscale, double max_norm, double* partial, GradientFacts* facts, void* stream);

/// AdamW (Loshchilov & Hutter, arXiv:1711.05101), then every EMA, in one pass over memory, with g = factor * gradient:
///   p *= keep      m += mix1 (g - m)      v = beta2 v + mix2 g^2      p += minus_rate m / (sqrt(v) / correction2 + eps)      e = r e + (1 - r) p
/// Where facts->factor is not finite nothing at all is written: the step is left out, and the host need not know at once.
/// @param facts  null: factor 1
void adamw_ema_cuda(const OptimTable& table, const AdamWFactors& factors, const GradientFacts* facts, void* stream);

}  // namespace uvit::kernels
