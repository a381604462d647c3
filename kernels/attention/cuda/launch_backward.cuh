#pragma once
#include "kernels/attention/cuda/backward.cuh"
#include "kernels/attention/cuda/kernels.h"

namespace uvit::kernels::cuda {

template <class T, int kWidth, Variant kVariant>
void launch_backward(BackwardArguments arguments, Stream stream) {
  using Kernel = BackwardKernel<T, kWidth, kVariant>;
  const Problem& p = arguments.problem;
  arguments.key_blocks = (p.Lk + Kernel::kRows - 1) / Kernel::kRows;
  arguments.query_blocks = (p.L + Kernel::kRows - 1) / Kernel::kRows;
  const int blocks = (arguments.key_blocks + arguments.query_blocks) * p.heads;
  ::uvit::cuda::launch("attention backward", attention_backward_kernel<T, kWidth, kVariant>,
                       {{blocks, 1, 1}, Kernel::kThreads, Kernel::kSharedBytes}, stream, arguments);
}

}  // namespace uvit::kernels::cuda
