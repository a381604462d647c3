#include "kernels/attention/cuda/backward_f32.cuh"
#include "kernels/attention/cuda/forward_f32.cuh"
#include "kernels/attention/cuda/kernels.h"

namespace uvit::kernels::cuda {
namespace {

template <int kWidth>
void launch_forward_of(const ForwardArguments& arguments, Variant variant, Stream stream) {
  using Kernel = ForwardF32<kWidth>;
  const Problem& p = arguments.problem;
  const int blocks = (p.L + Kernel::kRows - 1) / Kernel::kRows;
  ::uvit::cuda::launch("attention forward, float32", attention_forward_f32_kernel<kWidth>,
                       {{blocks * p.heads, 1, 1}, kF32Threads, Kernel::shared_bytes(arguments.v2.data != nullptr)}, stream, arguments, variant);
}

template <int kWidth>
void launch_backward_of(BackwardArguments arguments, Variant variant, Stream stream) {
  using Kernel = BackwardF32<kWidth>;
  const Problem& p = arguments.problem;
  arguments.key_blocks = (p.Lk + Kernel::kRows - 1) / Kernel::kRows;
  arguments.query_blocks = (p.L + Kernel::kRows - 1) / Kernel::kRows;
  ::uvit::cuda::launch("attention backward, float32", attention_backward_f32_kernel<kWidth>,
                       {{(arguments.key_blocks + arguments.query_blocks) * p.heads, 1, 1}, kF32Threads, Kernel::kSharedBytes}, stream, arguments,
                       variant);
}

}  // namespace

void launch_forward_f32(const ForwardArguments& arguments, Variant variant, Stream stream) {
  const bool narrow = arguments.problem.D <= 64 && arguments.problem.Dv <= 64;
  narrow ? launch_forward_of<64>(arguments, variant, stream) : launch_forward_of<128>(arguments, variant, stream);
}

void launch_backward_f32(const BackwardArguments& arguments, Variant variant, Stream stream) {
  const bool narrow = arguments.problem.D <= 64 && arguments.problem.Dv <= 64;
  narrow ? launch_backward_of<64>(arguments, variant, stream) : launch_backward_of<128>(arguments, variant, stream);
}

}  // namespace uvit::kernels::cuda
