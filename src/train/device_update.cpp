#include <torch/torch.h>

#include "train/device_update.h"

#ifdef UVIT_HAS_CUDA
#include "train/cuda/cuda_update.h"
#endif

namespace uvit {

std::unique_ptr<DeviceUpdate> make_device_update([[maybe_unused]] AdamW& optimizer, [[maybe_unused]] std::vector<Ema>& emas) {
#ifdef UVIT_HAS_CUDA
  return make_cuda_update(optimizer, emas);
#else
  return nullptr;
#endif
}

}  // namespace uvit
