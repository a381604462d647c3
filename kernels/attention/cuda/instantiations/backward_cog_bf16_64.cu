#include "kernels/attention/cuda/launch_backward.cuh"

namespace uvit::kernels::cuda {
template void launch_backward<::uvit::cuda::arch::bf16, 64, Variant::cog>(BackwardArguments, Stream);
}
