#pragma once
// Starts a kernel: on the GPU under nvcc, in the emulator (tests/cuda_on_cpu) under g++.
//
//   template <class T> UVIT_KERNEL(128, 2) void scale_kernel(ScaleParams p) { ... }
//   launch("scale", scale_kernel<float>, {{blocks, heads, batch}, 128, shared_bytes}, stream, params);
#include <stdexcept>
#include <string>

#include "kernels/cuda/arch.cuh"

namespace uvit::cuda {

struct LaunchShape {
  int grid[3] = {1, 1, 1};  ///< blocks; the last two at most 65535
  int threads = 32;         ///< of a block, a multiple of 32
  int shared_bytes = 0;     ///< dynamic shared memory of a block
};

template <class T>
struct SameType {
  using Type = T;
};

#ifdef __CUDACC__
using Stream = cudaStream_t;

/// Queues the kernel on the stream; never waits. An empty grid is no launch.
/// @throws std::runtime_error naming the kernel and CUDA's reason, when CUDA refuses the launch.
template <class... P>
void launch(const char* name, void (*kernel)(P...), const LaunchShape& shape, Stream stream, typename SameType<P>::Type... arguments) {
  if (shape.grid[0] == 0 || shape.grid[1] == 0 || shape.grid[2] == 0) return;
  cudaError_t error = cudaSuccess;
  if (shape.shared_bytes > 48 * 1024)  // beyond this a kernel has to ask
    error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes);
  if (error == cudaSuccess) {
    kernel<<<dim3(shape.grid[0], shape.grid[1], shape.grid[2]), shape.threads, shape.shared_bytes, stream>>>(arguments...);
    error = cudaGetLastError();
  }
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA kernel ") + name + ": " + cudaGetErrorString(error));
}
#else
using Stream = void*;

template <class... P>
void launch(const char* name, void (*kernel)(P...), const LaunchShape& shape, Stream, typename SameType<P>::Type... arguments) {
  emulator::run_grid(name, shape.grid, shape.threads, shape.shared_bytes, [&] { kernel(arguments...); });
}
#endif

}  // namespace uvit::cuda
