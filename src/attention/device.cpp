#include <torch/torch.h>

#include "attention/device.h"

#include <fmt/format.h>

#include "core/error.h"
#ifdef UVIT_HAS_CUDA
#include "attention/cuda/devices.h"
#endif

namespace uvit {

#ifdef UVIT_HAS_CUDA

c10::Device select_device(const std::string& name) {
  if (name == "cpu") return c10::kCPU;
  const std::string reason = cuda_obstacle();
  if (!reason.empty()) throw Error(fmt::format("device \"{}\": {}; use \"cpu\"", name, reason));
  return {c10::kCUDA, 0};
}

std::string describe_cuda() {
  std::string text;
  for (const CudaDevice& device : cuda_devices()) {
    text += fmt::format("{}cuda:{} {} (sm_{}, {:.1f} GiB)", text.empty() ? "" : "; ", device.index, device.name, device.architecture,
                        static_cast<double>(device.bytes) / (1 << 30));
  }
  return text.empty() ? cuda_obstacle() : text;
}

std::string cuda_architecture() {
  const std::vector<CudaDevice> devices = cuda_devices();
  return devices.empty() ? "" : fmt::format("sm_{}", devices.front().architecture);
}

#else

namespace {
constexpr const char* kNotBuilt = "this build has no CUDA (configure with -DWITH_CUDA=ON)";
}

c10::Device select_device(const std::string& name) {
  if (name == "cpu") return c10::kCPU;
  throw Error(fmt::format("device \"{}\": {}; use \"cpu\"", name, kNotBuilt));
}

std::string describe_cuda() { return kNotBuilt; }

std::string cuda_architecture() { return ""; }

#endif

at::Tensor to_device(const at::Tensor& host, c10::Device device) {
  if (device.is_cpu()) return host;
  return (host.is_pinned() ? host : host.pin_memory()).to(device, /*non_blocking=*/true);
}

}  // namespace uvit
