#include <torch/torch.h>

#include <string>

#include "attention/fused.h"

namespace uvit {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The arguments of the operators that are no tensors.
struct Settings {
  std::string kind;
  double scale = 1;
  bool causal = false;
  static constexpr std::size_t kCount = 3;

  void save(AutogradContext* context) const {
    context->saved_data["kind"] = kind;
    context->saved_data["scale"] = scale;
    context->saved_data["causal"] = causal;
  }
  static Settings load(AutogradContext* context) {
    return {context->saved_data["kind"].toStringRef(), context->saved_data["scale"].toDouble(), context->saved_data["causal"].toBool()};
  }
};

class AttentionForward : public torch::autograd::Function<AttentionForward> {
 public:
  static variable_list forward(AutogradContext* context, at::TensorList inputs, const std::string& kind, double scale, bool causal) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [out, stats] = call_attention_forward(inputs, kind, scale, causal);
    variable_list saved = inputs.vec();
    saved.insert(saved.end(), {out, stats});
    context->save_for_backward(std::move(saved));
    Settings{kind, scale, causal}.save(context);
    context->mark_non_differentiable({stats});
    context->set_materialize_grads(false);
    return {out, stats};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const Settings settings = Settings::load(context);
    variable_list saved = context->get_saved_variables();
    const std::size_t inputs = saved.size() - 2;
    variable_list result(inputs);
    if (gradients[0].defined()) {
      result = call_attention_backward(gradients[0], at::TensorList(saved.data(), inputs), saved[inputs], saved[inputs + 1], settings.kind,
                                       settings.scale, settings.causal);
    }
    result.resize(inputs + Settings::kCount);
    return result;
  }
};

/// Its own backward is the second derivative, which the fused kernels do not have.
class AttentionBackward : public torch::autograd::Function<AttentionBackward> {
 public:
  static variable_list forward(AutogradContext* /*context*/, const at::Tensor& dout, at::TensorList inputs, const at::Tensor& out,
                               const at::Tensor& stats, const std::string& kind, double scale, bool causal) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return call_attention_backward(dout, inputs, out, stats, kind, scale, causal);
  }

  static variable_list backward(AutogradContext* /*context*/, const variable_list& /*gradients*/) {
    TORCH_CHECK(false, "uvit::attention: the fused kernels cannot be differentiated twice; use float64, which runs plain operations that can");
  }
};

}  // namespace

std::tuple<at::Tensor, at::Tensor> attention_forward_autograd(at::TensorList inputs, std::string_view kind, double scale, bool causal) {
  const variable_list results = AttentionForward::apply(inputs, std::string(kind), scale, causal);
  return {results[0], results[1]};
}

std::vector<at::Tensor> attention_backward_autograd(const at::Tensor& dout, at::TensorList inputs, const at::Tensor& out, const at::Tensor& stats,
                                                    std::string_view kind, double scale, bool causal) {
  return AttentionBackward::apply(dout, inputs, out, stats, std::string(kind), scale, causal);
}

}  // namespace uvit
