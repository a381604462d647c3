#include "kernels/attention/cuda/launch_forward.cuh"

namespace uvit::kernels::cuda {
template void launch_forward<::uvit::cuda::arch::f16, 64, Variant::cog>(const ForwardArguments&, Stream);
}
