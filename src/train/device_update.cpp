#include <torch/torch.h>

#include "train/device_update.h"

#ifdef UVIT_HAS_CUDA
#include "train/cuda/cuda_update.h"
#endif

namespace uvit {

std::unique_ptr<DeviceUpdate> make_device_update([[maybe_unused]] Optimizer& optimizer, [[maybe_unused]] std::vector<Ema>& emas) {
#ifdef UVIT_HAS_CUDA
  auto* adamw = dynamic_cast<AdamW*>(&optimizer);
  return adamw ? make_cuda_update(*adamw, emas) : nullptr;
#else
  return nullptr;
#endif
}

}  // namespace uvit
