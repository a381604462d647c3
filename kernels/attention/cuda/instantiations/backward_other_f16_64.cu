#include "kernels/attention/cuda/launch_backward.cuh"

namespace uvit::kernels::cuda {
template void launch_backward<::uvit::cuda::arch::f16, 64, Variant::other>(BackwardArguments, Stream);
}
