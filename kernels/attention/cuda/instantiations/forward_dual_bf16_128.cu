#include "kernels/attention/cuda/launch_forward.cuh"

namespace uvit::kernels::cuda {
template void launch_forward<::uvit::cuda::arch::bf16, 128, Variant::dual>(const ForwardArguments&, Stream);
}
