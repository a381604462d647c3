#include <cmath>

#include "kernels/cuda/launch.cuh"
#include "kernels/optim/optim_cuda.h"

namespace uvit::kernels {
namespace cuda {
namespace {

namespace arch = ::uvit::cuda::arch;

constexpr int kThreads = 256;

/// Elements of the block's chunk.
struct Range {
  UVIT_DEVICE explicit Range(const OptimTable& table)
      : chunk(table.chunks[arch::block_index(0)]), tensor(table.tensors[chunk.tensor]), first(chunk.first + arch::thread_index()) {
    const std::int64_t end_of_chunk = chunk.first + kOptimChunk;
    end = tensor.size < end_of_chunk ? tensor.size : end_of_chunk;
  }
  const OptimChunk& chunk;
  const OptimTensor& tensor;
  std::int64_t first, end;
};

/// Adds one value of each thread, in an order fixed by their numbers; the sum is thread 0's.
UVIT_DEVICE double block_sum(double value, double* shared) {
  const int thread = arch::thread_index();
  shared[thread] = value;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    arch::sync_block();
    if (thread < half) shared[thread] += shared[thread + half];
  }
  return thread == 0 ? shared[0] : 0;  // the other threads would race with the last addition
}

UVIT_KERNEL(kThreads, 4) void squares_kernel(const OptimTable table, double* partial) {
  UVIT_SHARED_MEMORY(shared);
  const Range range(table);
  double sum = 0;
  if (range.tensor.gradient) {
    for (std::int64_t i = range.first; i < range.end; i += kThreads) {
      const double g = range.tensor.gradient[i];
      sum += g * g;
    }
  }
  sum = block_sum(sum, reinterpret_cast<double*>(shared));
  if (arch::thread_index() == 0) partial[arch::block_index(0)] = sum;
}

UVIT_KERNEL(kThreads, 1) void facts_kernel(int count, double unscale, double max_norm, const double* partial, GradientFacts* facts) {
  UVIT_SHARED_MEMORY(shared);
  double sum = 0;
  for (int i = arch::thread_index(); i < count; i += kThreads) sum += partial[i];
  sum = block_sum(sum, reinterpret_cast<double*>(shared));
  if (arch::thread_index() != 0) return;
  const double norm = unscale * std::sqrt(sum);
  double factor = unscale;
  if (max_norm > 0 && norm + 1e-6 > max_norm) factor *= max_norm / (norm + 1e-6);
  facts->norm = norm;
  facts->factor = static_cast<float>(norm - norm == 0 ? factor : norm - norm);  // infinity - infinity is NaN, and so is what begins as NaN
}

UVIT_KERNEL(kThreads, 4) void adamw_ema_kernel(const OptimTable table, const AdamWFactors f, const GradientFacts* facts) {
  const float factor = facts ? facts->factor : 1.0F;
  if (!(factor - factor == 0)) return;
  const Range range(table);
  const OptimTensor& t = range.tensor;
  for (std::int64_t i = range.first; i < range.end; i += kThreads) {
    float p = t.parameter[i];
    if (t.gradient) {
      const float g = t.gradient[i] * factor;
      float m = t.exp_avg[i], v = t.exp_avg_sq[i];
      m += f.mix1 * (g - m);
      v = v * f.beta2 + f.mix2 * g * g;
      p = p * t.keep + f.minus_rate * m / (sqrtf(v) / f.correction2 + f.eps);
      t.exp_avg[i] = m;
      t.exp_avg_sq[i] = v;
      t.parameter[i] = p;
    }
    UVIT_UNROLL
    for (int k = 0; k < kMostAverages; ++k) {
      if (k < f.num_averages) t.averages[k][i] = f.average_keep[k] * t.averages[k][i] + f.average_mix[k] * p;
    }
  }
}

}  // namespace
}  // namespace cuda

void gradient_facts_cuda(const OptimTable& table, double unscale, double max_norm, double* partial, GradientFacts* facts, void* stream) {
  using namespace cuda;
  const auto queue = static_cast<::uvit::cuda::Stream>(stream);
  constexpr int kShared = kThreads * static_cast<int>(sizeof(double));
  ::uvit::cuda::launch("squares", squares_kernel, {{table.num_chunks, 1, 1}, kThreads, kShared}, queue, table, partial);
  ::uvit::cuda::launch("gradient_facts", facts_kernel, {{1, 1, 1}, kThreads, kShared}, queue, table.num_chunks, unscale, max_norm, partial, facts);
}

void adamw_ema_cuda(const OptimTable& table, const AdamWFactors& factors, const GradientFacts* facts, void* stream) {
  using namespace cuda;
  const auto queue = static_cast<::uvit::cuda::Stream>(stream);
  ::uvit::cuda::launch("adamw_ema", adamw_ema_kernel, {{table.num_chunks, 1, 1}, kThreads, 0}, queue, table, factors, facts);
}

}  // namespace uvit::kernels
