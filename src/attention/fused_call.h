#pragma once
#include <ATen/core/Tensor.h>

#include <string_view>
#include <tuple>
#include <vector>

#include "kernels/attention/params.h"

namespace uvit {

// What the fused paths of all devices share: from tensors to the kernels' parameters.

/// Throws c10::Error unless `inputs` has the tensors of the kind (fused.h), of one dtype and device.
void check_fused_inputs(at::TensorList inputs, kernels::Kind kind);

/// Uninitialised results: out [B, H, L, Dv], a view of [B, L, H, Dv] storage, and stats [stats_per_row, B, H, L] float32.
std::tuple<at::Tensor, at::Tensor> make_fused_outputs(at::TensorList inputs, kernels::Kind kind);

/// Uninitialised gradients of the inputs, in their order and as fused.h says.
std::vector<at::Tensor> make_fused_gradients(at::TensorList inputs, kernels::Kind kind);

/// The kernel's parameters of one call, and the tensors that they point into. All checks throw c10::Error.
class FusedCall {
 public:
  FusedCall(at::TensorList inputs, std::string_view kind_name, double scale, bool causal);

  kernels::AttentionParams& params() { return params_; }
  bool has_rows() const { return params_.B * params_.H * params_.L > 0; }

  void set_out(const at::Tensor& out, const at::Tensor& stats);
  void set_dout(const at::Tensor& dout);
  void set_gradients(const std::vector<at::Tensor>& gradients);

 private:
  std::vector<kernels::View*> input_views();
  std::vector<kernels::MutableView*> gradient_views();
  void set_sizes();

  kernels::Kind kind_;
  bool packed_;
  kernels::AttentionParams params_;
  std::vector<at::Tensor> held_;
};

}  // namespace uvit
