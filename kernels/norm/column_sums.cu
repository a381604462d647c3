#include "kernels/norm/norm_cuda.h"
#include "kernels/norm/rows.cuh"

namespace uvit::kernels {
namespace cuda {
namespace {

struct PartialsArguments {
  const float* partial;
  int blocks, width, columns;
  float *first, *second;
};

/// A warp takes 32 columns of one row of partial sums after the other, so that reads are whole lines; four warps share the rows and add up in order.
UVIT_KERNEL(kThreads, 8) void add_partials_kernel(const PartialsArguments p) {
  UVIT_SHARED_MEMORY(shared);
  float* sums = reinterpret_cast<float*>(shared);
  const int lane = arch::thread_index() % 32, warp = arch::thread_index() / 32, column = 32 * arch::block_index(0) + lane;
  float sum = 0;
  if (column < p.columns) {
    for (int b = warp; b < p.blocks; b += kWarps) sum += p.partial[static_cast<std::int64_t>(p.columns) * b + column];
  }
  sums[arch::thread_index()] = sum;
  arch::sync_block();
  if (warp != 0 || column >= p.columns) return;
  for (int w = 1; w < kWarps; ++w) sum += sums[32 * w + lane];
  (column < p.width ? p.first[column] : p.second[column - p.width]) = sum;
}

}  // namespace

void add_partials(const float* partial, int blocks, int width, float* first, float* second, ::uvit::cuda::Stream stream) {
  const PartialsArguments arguments{partial, blocks, width, second ? 2 * width : width, first, second};
  ::uvit::cuda::launch("add_partials", add_partials_kernel, {{(arguments.columns + 31) / 32, 1, 1}, kThreads, kThreads * 4}, stream, arguments);
}

}  // namespace cuda


std::size_t column_sums_workspace_cuda(std::int64_t rows, std::int64_t width) {
  return static_cast<std::size_t>(cuda::partial_blocks(rows)) * 2 * static_cast<std::size_t>(width) * sizeof(float);
}

}  // namespace uvit::kernels
