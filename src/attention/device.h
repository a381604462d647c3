#pragma once
#include <ATen/core/Tensor.h>

#include <string>

namespace uvit {

/// The device that a configuration or a command line names: "cpu", or "cuda", the first GPU.
/// Throws Error in one line where a GPU is asked for and this build, the driver or the GPU (sm_80 and newer will do) does not give one.
c10::Device select_device(const std::string& name);

/// A copy of a CPU tensor on the device, which a GPU fetches from pinned memory without anyone waiting for it; on the CPU the tensor itself.
at::Tensor to_device(const at::Tensor& host, c10::Device device);

/// Every CUDA device with its name, architecture and memory, "; " between them; or why there is none.
std::string describe_cuda();

/// Of the current CUDA device: "sm_90"; "" where there is none.
std::string cuda_architecture();

}  // namespace uvit
