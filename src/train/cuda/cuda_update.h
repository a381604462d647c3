#pragma once
#include "train/fused_update.h"

namespace uvit {

/// FusedUpdate by kernels/optim; null as make_fused_update says.
std::unique_ptr<FusedUpdate> make_cuda_update(AdamW& optimizer, std::vector<Ema>& emas);

}  // namespace uvit
