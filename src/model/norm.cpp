#include <torch/torch.h>

#include "model/norm.h"

#include <array>

#include "core/name_table.h"
#include "model/token_ops.h"

namespace uvit {
namespace {

at::Tensor at_least_float(const at::Tensor& x) { return at::isReducedFloatingType(x.scalar_type()) ? x.to(at::kFloat) : x; }

/// LayerNorm as the official network has it, with the fused pass of token_ops.h.
class AffineLayerNorm : public Norm {
 public:
  explicit AffineLayerNorm(std::int64_t width)
      : weight_(register_parameter("weight", torch::ones({width}))), bias_(register_parameter("bias", torch::zeros({width}))) {}
  at::Tensor forward(const at::Tensor& x) override { return layer_norm({weight_, bias_}, x); }
  std::pair<at::Tensor, at::Tensor> add(const at::Tensor& x, const at::Tensor& branch) override {
    return add_layer_norm({weight_, bias_}, x, branch);
  }

 private:
  at::Tensor weight_, bias_;
};

/// The others: plain ATen operations.
class PlainNorm : public Norm {
 public:
  std::pair<at::Tensor, at::Tensor> add(const at::Tensor& x, const at::Tensor& branch) override {
    const at::Tensor sum = x + branch;
    return {sum, forward(sum)};
  }
};

class BareLayerNorm : public PlainNorm {
 public:
  at::Tensor forward(const at::Tensor& x) override { return at::layer_norm(at_least_float(x), {x.size(-1)}, {}, {}, 1e-6); }
};

class RootMeanSquareNorm : public PlainNorm {
 public:
  RootMeanSquareNorm(std::int64_t width, bool affine) {
    if (affine) weight_ = register_parameter("weight", torch::ones({width}));
  }
  at::Tensor forward(const at::Tensor& x) override {
    if (!weight_.defined()) return at::rms_norm(at_least_float(x), {x.size(-1)}, {}, 1e-6);
    return at::rms_norm(x.to(weight_.scalar_type()), {x.size(-1)}, weight_, 1e-6);
  }

 private:
  at::Tensor weight_;
};

}  // namespace

std::shared_ptr<Norm> make_norm(const std::string& kind, std::int64_t width, bool affine) {
  static const std::array<std::string, 2> kinds = {"layer", "rms"};
  if (kind == kinds[1]) return std::make_shared<RootMeanSquareNorm>(width, affine);
  if (kind != kinds[0]) throw_unknown_name("norm", kind, kinds);
  if (affine) return std::make_shared<AffineLayerNorm>(width);
  return std::make_shared<BareLayerNorm>();
}

}  // namespace uvit
