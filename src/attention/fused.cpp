#include <torch/torch.h>

#include "attention/fused.h"

#include <ATen/Parallel.h>

#include <functional>

#include "attention/eager.h"
#include "attention/fused_call.h"
#include "kernels/attention/cpu/attention_cpu.h"

namespace uvit {
namespace {

/// One item a task: the kernels have cut the work already, and their results do not depend on the ranges.
void parallel_for(std::int64_t n, const std::function<void(std::int64_t, std::int64_t)>& body) { at::parallel_for(0, n, 1, body); }

}  // namespace

std::tuple<at::Tensor, at::Tensor> attention_forward_cpu(at::TensorList inputs, std::string_view kind, double scale, bool causal) {
  FusedCall call(inputs, kind, scale, causal);
  auto [out, stats] = make_fused_outputs(inputs, call.params().kind);
  call.set_out(out, stats);
  kernels::attention_forward(call.params(), parallel_for);
  return {out, stats};
}

std::tuple<at::Tensor, at::Tensor> attention_forward_meta(at::TensorList inputs, std::string_view kind, double /*scale*/, bool /*causal*/) {
  const kernels::Kind found = find_operator_kind(kind);
  check_fused_inputs(inputs, found);
  return make_fused_outputs(inputs, found);
}

std::vector<at::Tensor> attention_backward_cpu(const at::Tensor& dout, at::TensorList inputs, const at::Tensor& out, const at::Tensor& stats,
                                               std::string_view kind, double scale, bool causal) {
  FusedCall call(inputs, kind, scale, causal);
  std::vector<at::Tensor> gradients = make_fused_gradients(inputs, call.params().kind);
  if (!call.has_rows()) {
    for (at::Tensor& gradient : gradients) gradient.zero_();
    return gradients;
  }
  call.set_out(out, stats);
  call.set_dout(dout);
  call.set_gradients(gradients);
  kernels::attention_backward(call.params(), parallel_for);
  return gradients;
}

std::vector<at::Tensor> attention_backward_meta(const at::Tensor& /*dout*/, at::TensorList inputs, const at::Tensor& /*out*/,
                                                const at::Tensor& /*stats*/, std::string_view kind, double /*scale*/, bool /*causal*/) {
  const kernels::Kind found = find_operator_kind(kind);
  check_fused_inputs(inputs, found);
  return make_fused_gradients(inputs, found);
}

}  // namespace uvit
