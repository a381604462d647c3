#pragma once
#include "kernels/attention/cuda/forward.cuh"
#include "kernels/attention/cuda/kernels.h"

namespace uvit::kernels::cuda {

template <class T, int kWidth, Variant kVariant>
void launch_forward(const ForwardArguments& arguments, Stream stream) {
  using Kernel = ForwardKernel<T, kWidth, kVariant>;
  const Problem& p = arguments.problem;
  const int blocks = (p.L + Kernel::kRows - 1) / Kernel::kRows;
  ::uvit::cuda::launch("attention forward", attention_forward_kernel<T, kWidth, kVariant>,
                       {{blocks * p.heads, 1, 1}, Kernel::kThreads, Kernel::shared_bytes(arguments.v2.data != nullptr)}, stream, arguments);
}

}  // namespace uvit::kernels::cuda
