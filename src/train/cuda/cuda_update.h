#pragma once
#include "train/device_update.h"

namespace uvit {

/// DeviceUpdate by kernels/optim; null as make_device_update says.
std::unique_ptr<DeviceUpdate> make_cuda_update(AdamW& optimizer, std::vector<Ema>& emas);

}  // namespace uvit
