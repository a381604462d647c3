#include <torch/torch.h>

#include "attention/fused_call.h"

#include <algorithm>
#include <string>

#include "attention/eager.h"
#include "attention/operator.h"

namespace uvit {

using kernels::Kind;

namespace {

bool is_packed(at::TensorList inputs) { return !inputs.empty() && inputs[0].dim() == 5; }

std::size_t num_head_weights(Kind kind) { return static_cast<std::size_t>(has_w_plus(kind)) + static_cast<std::size_t>(has_w_minus(kind)); }

std::size_t num_rows_inputs(Kind kind, bool packed) { return packed ? 1 : 3 + 2 * has_second_scores(kind) + has_second_value(kind); }

struct OutputSizes {
  explicit OutputSizes(at::TensorList inputs) {
    const at::Tensor& q = inputs[0];
    const bool packed = q.dim() == 5;
    batch = q.sym_size(0);
    heads = q.sym_size(packed ? 3 : 1);
    queries = q.sym_size(packed ? 1 : 2);
    value_dim = packed ? q.sym_size(4) : inputs[2].sym_size(3);
  }
  c10::SymInt batch, heads, queries, value_dim;
};

/// Whether the kernels read the rows in place: contiguous ones, and on a GPU 16-bit ones that begin at multiples of 16 bytes.
bool has_readable_rows(const at::Tensor& x) {
  if (x.stride(-1) != 1) return false;
  if (!x.is_cuda() || x.element_size() != 2) return true;
  const auto aligned = [](std::int64_t elements) { return elements % 8 == 0; };
  const at::IntArrayRef outer = x.strides().slice(0, static_cast<std::size_t>(x.dim()) - 1);
  return reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) % 16 == 0 && std::all_of(outer.begin(), outer.end(), aligned);
}

/// The tensor itself, or a copy that the kernels can read. (contiguous() would hand back a misaligned tensor that is contiguous.)
at::Tensor with_readable_rows(const at::Tensor& x) { return has_readable_rows(x) ? x : x.clone(at::MemoryFormat::Contiguous); }

void check_sizes(const char* name, const at::Tensor& x, at::IntArrayRef sizes) {
  TORCH_CHECK(x.sizes() == sizes, "uvit::_attention: ", name, " has shape ", x.sizes(), " and not ", sizes);
}

kernels::Dtype kernel_dtype(at::ScalarType dtype) {
  if (dtype == at::kFloat) return kernels::Dtype::f32;
  return dtype == at::kHalf ? kernels::Dtype::f16 : kernels::Dtype::bf16;
}

/// Points each view to its tensor [B, H, length, width], or to its part of the one [B, L, S, H, D].
template <class View>
void point_to(const std::vector<View*>& views, const std::vector<at::Tensor>& tensors, bool packed) {
  for (std::size_t i = 0; i < views.size(); ++i) {
    const at::Tensor& x = tensors[packed ? 0 : i];
    auto* data = static_cast<char*>(x.data_ptr());
    if (packed) {
      const std::int64_t offset = static_cast<std::int64_t>(i) * x.stride(2) * static_cast<std::int64_t>(x.element_size());
      *views[i] = {data + offset, x.stride(0), x.stride(3), x.stride(1)};
    } else {
      *views[i] = {data, x.stride(0), x.stride(1), x.stride(2)};
    }
  }
}

}  // namespace

void check_fused_inputs(at::TensorList inputs, Kind kind) {
  const bool packed = is_packed(inputs);
  const std::size_t rows = num_rows_inputs(kind, packed);
  TORCH_CHECK(inputs.size() == rows + num_head_weights(kind) && !(packed && has_second_scores(kind)),
              "uvit::_attention_forward: wrong number of inputs for kind '", kernels::kind_name(kind), "': ", inputs.size());
  for (std::size_t i = 0; i < rows; ++i) {
    TORCH_CHECK(inputs[i].dim() == (packed ? 5 : 4) && inputs[i].scalar_type() == inputs[0].scalar_type() && inputs[i].device() == inputs[0].device(),
                "uvit::_attention_forward: input ", i, " differs from input 0 in its number of dimensions, dtype or device");
  }
  for (std::size_t i = rows; i < inputs.size(); ++i) {
    TORCH_CHECK(inputs[i].scalar_type() == at::kFloat && inputs[i].device() == inputs[0].device(),
                "uvit::_attention_forward: w_plus and w_minus are float32, on the device of input 0");
  }
}

std::tuple<at::Tensor, at::Tensor> make_fused_outputs(at::TensorList inputs, Kind kind) {
  const OutputSizes s(inputs);
  const at::TensorOptions options = inputs[0].options();
  return {at::empty_symint({s.batch, s.queries, s.heads, s.value_dim}, options).transpose(1, 2),
          at::empty_symint({kernels::stats_per_row(kind), s.batch, s.heads, s.queries}, options.dtype(at::kFloat))};
}

std::vector<at::Tensor> make_fused_gradients(at::TensorList inputs, Kind kind) {
  const bool packed = is_packed(inputs);
  const std::size_t rows = num_rows_inputs(kind, packed);
  std::vector<at::Tensor> gradients;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const at::Tensor& x = inputs[i];
    if (packed || i >= rows) {
      gradients.push_back(at::empty_symint(x.sym_sizes(), x.options()));
    } else {
      gradients.push_back(at::empty_symint({x.sym_size(0), x.sym_size(2), x.sym_size(1), x.sym_size(3)}, x.options()).transpose(1, 2));
    }
  }
  return gradients;
}

FusedCall::FusedCall(at::TensorList inputs, std::string_view kind_name, double scale, bool causal)
    : kind_(find_operator_kind(kind_name)), packed_(is_packed(inputs)) {
  check_fused_inputs(inputs, kind_);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    held_.push_back(i < num_rows_inputs(kind_, packed_) ? with_readable_rows(inputs[i]) : inputs[i].contiguous());
  }
  set_sizes();
  const std::string reason = plain_path_reason(inputs[0].device().type(), inputs[0].scalar_type(), params_.D, params_.Dv);
  TORCH_CHECK(reason.empty(), "uvit::_attention_forward: ", reason);
  params_.kind = kind_;
  params_.dtype = kernel_dtype(inputs[0].scalar_type());
  params_.causal = causal;
  params_.scale = static_cast<float>(scale);
  point_to(input_views(), held_, packed_);
  std::size_t next = num_rows_inputs(kind_, packed_);
  if (has_w_plus(kind_)) params_.w_plus = held_[next++].const_data_ptr<float>();
  if (has_w_minus(kind_)) params_.w_minus = held_[next].const_data_ptr<float>();
}

void FusedCall::set_out(const at::Tensor& out, const at::Tensor& stats) {
  check_sizes("out", out, {params_.B, params_.H, params_.L, params_.Dv});
  check_sizes("stats", stats, {kernels::stats_per_row(kind_), params_.B, params_.H, params_.L});
  TORCH_CHECK(out.stride(-1) == 1 && stats.is_contiguous() && stats.scalar_type() == at::kFloat && out.scalar_type() == held_[0].scalar_type() &&
                  out.device() == held_[0].device() && stats.device() == held_[0].device(),
              "uvit::_attention_backward: out and stats are those of _attention_forward");
  params_.o = {out.data_ptr(), out.stride(0), out.stride(1), out.stride(2)};
  params_.stats = stats.data_ptr<float>();
}

void FusedCall::set_dout(const at::Tensor& dout) {
  check_sizes("dout", dout, {params_.B, params_.H, params_.L, params_.Dv});
  TORCH_CHECK(dout.scalar_type() == held_[0].scalar_type() && dout.device() == held_[0].device(), "uvit::_attention_backward: dout has dtype ",
              dout.scalar_type(), " on ", dout.device());
  held_.push_back(with_readable_rows(dout));
  const at::Tensor& d = held_.back();
  params_.dout = {d.const_data_ptr(), d.stride(0), d.stride(1), d.stride(2)};
}

void FusedCall::set_gradients(const std::vector<at::Tensor>& gradients) {
  point_to(gradient_views(), gradients, packed_);
  std::size_t next = num_rows_inputs(kind_, packed_);
  if (has_w_plus(kind_)) params_.dw_plus = gradients[next++].data_ptr<float>();
  if (has_w_minus(kind_)) params_.dw_minus = gradients[next].data_ptr<float>();
}

std::vector<kernels::View*> FusedCall::input_views() {
  std::vector<kernels::View*> views = {&params_.q, &params_.k, &params_.v};
  if (has_second_scores(kind_)) views.insert(views.end(), {&params_.q2, &params_.k2});
  if (has_second_value(kind_)) views.push_back(&params_.v2);
  return views;
}

std::vector<kernels::MutableView*> FusedCall::gradient_views() {
  std::vector<kernels::MutableView*> views = {&params_.dq, &params_.dk, &params_.dv};
  if (has_second_scores(kind_)) views.insert(views.end(), {&params_.dq2, &params_.dk2});
  if (has_second_value(kind_)) views.push_back(&params_.dv2);
  return views;
}

void FusedCall::set_sizes() {
  kernels::AttentionParams& p = params_;
  const at::Tensor& q = held_[0];
  if (packed_) {
    p.B = q.size(0), p.L = p.Lk = q.size(1), p.H = q.size(3), p.D = p.Dv = q.size(4);
    check_sizes("qkv", q, {p.B, p.L, has_second_value(kind_) ? 4 : 3, p.H, p.D});
  } else {
    p.B = q.size(0), p.H = q.size(1), p.L = q.size(2), p.D = q.size(3), p.Lk = held_[1].size(2), p.Dv = held_[2].size(3);
    check_sizes("k", held_[1], {p.B, p.H, p.Lk, p.D});
    check_sizes("v", held_[2], {p.B, p.H, p.Lk, p.Dv});
    if (has_second_scores(kind_)) {
      check_sizes("q2", held_[3], {p.B, p.H, p.L, p.D});
      check_sizes("k2", held_[4], {p.B, p.H, p.Lk, p.D});
    }
    if (has_second_value(kind_)) check_sizes("v2", held_[3], {p.B, p.H, p.Lk, p.Dv});
  }
  for (std::size_t i = num_rows_inputs(kind_, packed_); i < held_.size(); ++i) check_sizes("w_plus or w_minus", held_[i], {p.H});
}

}  // namespace uvit
