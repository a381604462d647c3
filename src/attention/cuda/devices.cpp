#include "attention/cuda/devices.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

namespace uvit {
namespace {

constexpr int kOldest = 80;  // mma.sync on bfloat16 and cp.async came with it

std::vector<CudaDevice> ask_driver() {
  std::vector<CudaDevice> devices;
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    devices.push_back({i, properties.name, 10 * properties.major + properties.minor, properties.totalGlobalMem});
  }
  return devices;
}

}  // namespace

const std::vector<CudaDevice>& cuda_devices() {
  static const std::vector<CudaDevice> devices = ask_driver();
  return devices;
}

std::string cuda_obstacle() {
  const std::vector<CudaDevice>& devices = cuda_devices();
  if (devices.empty()) {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    return fmt::format("no usable GPU here ({})", error == cudaSuccess ? "the driver shows none" : cudaGetErrorString(error));
  }
  const CudaDevice& first = devices.front();
  if (first.architecture < kOldest) {
    return fmt::format("{} is sm_{} and the kernels need sm_{} or newer", first.name, first.architecture, kOldest);
  }
  return "";
}

}  // namespace uvit
