#include "kernels/attention/cuda/kernels.h"
#include "kernels/attention/cuda/rows.cuh"

namespace uvit::kernels::cuda {

template <class T>
void launch_prepare_rows(const RowsArguments& arguments, Stream stream) {
  const int blocks = static_cast<int>((arguments.problem.rows + kRowsOfBlock<T> - 1) / kRowsOfBlock<T>);
  ::uvit::cuda::launch("attention rows", prepare_rows_kernel<T>, {{blocks, 1, 1}, kRowsThreads, 0}, stream, arguments);
}

template <class T>
void launch_prefix(const PrefixArguments& arguments, int heads, Stream stream) {
  ::uvit::cuda::launch("attention running sums", prefix_kernel<T>, {{heads, 1, 1}, kPrefixThreads, 0}, stream, arguments);
}

void launch_weight_sums(const WeightSumArguments& arguments, Stream stream) {
  ::uvit::cuda::launch("attention weight gradients", weight_sum_kernel,
                       {{2 * arguments.H, 1, 1}, kSumThreads, kSumThreads * int{sizeof(double)}}, stream, arguments);
}

template void launch_prepare_rows<::uvit::cuda::arch::bf16>(const RowsArguments&, Stream);
template void launch_prepare_rows<::uvit::cuda::arch::f16>(const RowsArguments&, Stream);
template void launch_prepare_rows<float>(const RowsArguments&, Stream);
template void launch_prefix<::uvit::cuda::arch::bf16>(const PrefixArguments&, int, Stream);
template void launch_prefix<::uvit::cuda::arch::f16>(const PrefixArguments&, int, Stream);
template void launch_prefix<float>(const PrefixArguments&, int, Stream);

}  // namespace uvit::kernels::cuda
