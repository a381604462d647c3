#include <torch/torch.h>

#include "train/fused_update.h"

#ifdef UVIT_HAS_CUDA
#include "train/cuda/cuda_update.h"
#endif

namespace uvit {
namespace {

class HostUpdate : public FusedUpdate {
 public:
  HostUpdate(AdamW& optimizer, std::vector<Ema>& emas) : optimizer_(optimizer), emas_(emas) {}
  at::Tensor measure(double unscale, double max_norm) override {
    for (const auto& [name, parameter] : optimizer_.parameters())
      if (unscale != 1 && parameter.grad().defined()) parameter.mutable_grad().mul_(unscale);
    return at::scalar_tensor(clip_gradients(optimizer_.parameters(), max_norm), at::kDouble);
  }
  void apply(double lr) override { optimizer_.step(lr, emas_); }

 private:
  AdamW& optimizer_;
  std::vector<Ema>& emas_;
};

}  // namespace

std::unique_ptr<FusedUpdate> make_fused_update(Optimizer& optimizer, std::vector<Ema>& emas) {
  auto* adamw = dynamic_cast<AdamW*>(&optimizer);
  if (!adamw) return nullptr;
  if (adamw->parameters().front().second.is_cpu()) return std::make_unique<HostUpdate>(*adamw, emas);
#ifdef UVIT_HAS_CUDA
  return make_cuda_update(*adamw, emas);
#else
  return nullptr;
#endif
}

}  // namespace uvit
