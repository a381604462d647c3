#include <torch/torch.h>

#include "attention/operator.h"

#include <ATen/autocast_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>
#include <vector>

#include "attention/fused.h"
#include "core/error.h"
#include "kernels/attention/cpu/attention_cpu.h"
#ifdef UVIT_HAS_CUDA
#include "attention/cuda/fused_cuda.h"
#endif

namespace uvit {
namespace {

using kernels::Kind;
using OptionalTensor = std::optional<at::Tensor>;

Kind checked_kind(std::string_view name) {
  try {
    return find_operator_kind(name);
  } catch (const Error& error) {
    TORCH_CHECK(false, "uvit::attention: ", error.what());
  }
}

void check_operand(const char* name, const char* shape, const at::Tensor& x, const at::Tensor& first, const char* first_name) {
  const std::int64_t dims = std::count(shape, shape + std::char_traits<char>::length(shape), ',') + 1;
  TORCH_CHECK(x.dim() == dims, "uvit::attention: ", name, " must be ", shape, ", got shape ", x.sym_sizes());
  TORCH_CHECK(x.is_floating_point(), "uvit::attention: ", name, " must have a floating dtype, got ", x.scalar_type());
  TORCH_CHECK(x.device() == first.device(), "uvit::attention: ", name, " is on ", x.device(), " and ", first_name, " on ", first.device());
  TORCH_CHECK(x.scalar_type() == first.scalar_type(), "uvit::attention: ", name, " is ", x.scalar_type(), " and ", first_name, " is ",
              first.scalar_type(), ": one dtype, please");
}

void check_sizes(const char* name, const char* shape, const at::Tensor& x, const std::vector<c10::SymInt>& sizes) {
  for (std::size_t d = 0; d < sizes.size(); ++d) {
    TORCH_CHECK(x.sym_size(static_cast<std::int64_t>(d)).sym_eq(sizes[d]).expect_true(__FILE__, __LINE__), "uvit::attention: ", name, " must be ",
                shape, " = ", c10::SymIntArrayRef(sizes), ", got shape ", x.sym_sizes());
  }
}

void check_present(const char* name, const at::Tensor& given, bool needed, Kind kind) {
  TORCH_CHECK(given.defined() || !needed, "uvit::attention: kind '", kernels::kind_name(kind), "' needs ", name);
  TORCH_CHECK(!given.defined() || needed, "uvit::attention: kind '", kernels::kind_name(kind), "' takes no ", name);
}

void check_head_weights(const AttentionExtras& extras, Kind kind, const at::Tensor& first, const c10::SymInt& heads) {
  check_present("w_plus", extras.w_plus, has_w_plus(kind), kind);
  check_present("w_minus", extras.w_minus, has_w_minus(kind), kind);
  for (const auto& [name, w] : {std::pair("w_plus", extras.w_plus), std::pair("w_minus", extras.w_minus)}) {
    if (!w.defined()) continue;
    TORCH_CHECK(w.dim() == 1 && w.is_floating_point(), "uvit::attention: ", name, " must be [H] of a floating dtype, got shape ", w.sym_sizes());
    TORCH_CHECK(w.device() == first.device(), "uvit::attention: ", name, " is on ", w.device(), " and the other tensors on ", first.device());
    check_sizes(name, "[H]", w, {heads});
  }
}

void check_operands(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, Kind kind, const AttentionExtras& extras) {
  constexpr const char *queries = "[B, H, L, D]", *keys = "[B, H, Lk, D]", *values = "[B, H, Lk, Dv]";
  check_present("q2", extras.q2, has_second_scores(kind), kind);
  check_present("k2", extras.k2, has_second_scores(kind), kind);
  check_present("v2", extras.v2, has_second_value(kind), kind);
  check_operand("q", queries, q, q, "q");
  TORCH_CHECK(q.sym_size(3).sym_gt(0).expect_true(__FILE__, __LINE__), "uvit::attention: q has head_dim 0");
  check_operand("k", keys, k, q, "q");
  check_operand("v", values, v, q, "q");
  const c10::SymInt batch = q.sym_size(0), heads = q.sym_size(1), length = k.sym_size(2);
  check_sizes("k", keys, k, {batch, heads, length, q.sym_size(3)});
  check_sizes("v", values, v, {batch, heads, length, v.sym_size(3)});
  const std::array<std::tuple<const char*, const char*, at::Tensor, at::Tensor>, 3> seconds = {
      {{"q2", queries, extras.q2, q}, {"k2", keys, extras.k2, k}, {"v2", values, extras.v2, v}}};
  for (const auto& [name, shape, x, like] : seconds) {
    if (!x.defined()) continue;
    check_operand(name, shape, x, q, "q");
    check_sizes(name, shape, x, like.sym_sizes().vec());
  }
  check_head_weights(extras, kind, q, heads);
}

double checked_scale(std::optional<double> scale, std::int64_t head_dim) {
  const double value = scale.value_or(1.0 / std::sqrt(static_cast<double>(head_dim)));
  TORCH_CHECK(std::isfinite(value), "uvit::attention: scale is ", value, ", it must be finite");
  return value;
}

/// `rows` are q, k and v, or qkv.
at::Tensor run_fused(std::vector<at::Tensor> rows, const AttentionExtras& extras, Kind kind, double scale, bool causal) {
  for (const at::Tensor& x : {extras.q2, extras.k2, extras.v2}) {
    if (x.defined()) rows.push_back(x);
  }
  for (const at::Tensor& w : {extras.w_plus, extras.w_minus}) {
    if (w.defined()) rows.push_back(w.to(at::kFloat));
  }
  return std::get<0>(call_attention_forward(rows, kernels::kind_name(kind), scale, causal));
}

/// A schema's `Tensor?` and ours, which is undefined where there is none.
at::Tensor tensor_of(const OptionalTensor& x) { return x.value_or(at::Tensor()); }
OptionalTensor optional_of(const at::Tensor& x) { return x.defined() ? OptionalTensor(x) : std::nullopt; }

std::int64_t fixed_size(const at::Tensor& x, std::int64_t dim) { return x.sym_size(dim).guard_int(__FILE__, __LINE__); }

at::Tensor attention_composite(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::string_view kind_name, std::optional<double> scale,
                               bool causal, const OptionalTensor& q2, const OptionalTensor& k2, const OptionalTensor& v2,
                               const OptionalTensor& w_plus, const OptionalTensor& w_minus) {
  const AttentionExtras extras{tensor_of(q2), tensor_of(k2), tensor_of(v2), tensor_of(w_plus), tensor_of(w_minus)};
  const Kind kind = checked_kind(kind_name);
  check_operands(q, k, v, kind, extras);
  const std::int64_t head_dim = fixed_size(q, 3);
  const double factor = checked_scale(scale, head_dim);
  const bool fused = plain_path_reason(q.device().type(), q.scalar_type(), head_dim, fixed_size(v, 3)).empty();
  if (fused) return run_fused({q, k, v}, extras, kind, factor, causal);
  return eager_attention(q, k, v, kind_name, factor, causal, extras).transpose(1, 2).contiguous().transpose(1, 2);
}

at::Tensor attention_packed_composite(const at::Tensor& qkv, std::string_view kind_name, std::optional<double> scale, bool causal,
                                      const OptionalTensor& w_plus, const OptionalTensor& w_minus) {
  const AttentionExtras extras{.w_plus = tensor_of(w_plus), .w_minus = tensor_of(w_minus)};
  const Kind kind = checked_kind(kind_name);
  TORCH_CHECK(!has_second_scores(kind), "uvit::attention_packed: kind '", kind_name, "' has no packed form, use uvit::attention");
  check_operand("qkv", "[B, L, S, H, D]", qkv, qkv, "qkv");
  const std::int64_t parts = has_second_value(kind) ? 4 : 3, head_dim = fixed_size(qkv, 4);
  TORCH_CHECK(fixed_size(qkv, 2) == parts, "uvit::attention_packed: qkv must be [B, L, ", parts, ", H, D] for kind '", kind_name, "', got shape ",
              qkv.sym_sizes());
  TORCH_CHECK(head_dim > 0, "uvit::attention_packed: qkv has head_dim 0");
  check_head_weights(extras, kind, qkv, qkv.sym_size(3));
  const double factor = checked_scale(scale, head_dim);
  if (!plain_path_reason(qkv.device().type(), qkv.scalar_type(), head_dim, head_dim).empty()) {
    return eager_attention_packed(qkv, kind_name, factor, causal, extras.w_plus, extras.w_minus);
  }
  return run_fused({qkv}, extras, kind, factor, causal).transpose(1, 2).flatten(2);  // a view of [B, L, H, D]
}

/// Under autocast the operands are brought to its dtype, as it does for torch's own attention; float64 and the head weights stay.
template <c10::DeviceType device>
class Autocast {
 public:
  static at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::string_view kind, std::optional<double> scale,
                              bool causal, const OptionalTensor& q2, const OptionalTensor& k2, const OptionalTensor& v2,
                              const OptionalTensor& w_plus, const OptionalTensor& w_minus) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    return uvit::attention(cast(q), cast(k), cast(v), kind, scale, causal,
                           {cast_extra(q2), cast_extra(k2), cast_extra(v2), tensor_of(w_plus), tensor_of(w_minus)});
  }
  static at::Tensor attention_packed(const at::Tensor& qkv, std::string_view kind, std::optional<double> scale, bool causal,
                                     const OptionalTensor& w_plus, const OptionalTensor& w_minus) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    return uvit::attention_packed(cast(qkv), kind, scale, causal, tensor_of(w_plus), tensor_of(w_minus));
  }

 private:
  static at::Tensor cast_extra(const OptionalTensor& x) { return x ? cast(*x) : at::Tensor(); }
  static at::Tensor cast(const at::Tensor& x) { return at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), x, device); }
};

template <c10::DeviceType device>
torch::Library autocast_library(c10::DispatchKey key) {
  torch::Library library(torch::Library::IMPL, "uvit", key, __FILE__, __LINE__);
  library.impl("attention", TORCH_FN(Autocast<device>::attention));
  library.impl("attention_packed", TORCH_FN(Autocast<device>::attention_packed));
  return library;
}

torch::Library fused_library(c10::DispatchKey key, decltype(attention_forward_cpu)* forward, decltype(attention_backward_cpu)* backward) {
  torch::Library library(torch::Library::IMPL, "uvit", key, __FILE__, __LINE__);
  library.impl("_attention_forward", forward);
  library.impl("_attention_backward", backward);
  return library;
}

torch::Library definitions() {
  torch::Library library(torch::Library::DEF, "uvit", std::nullopt, __FILE__, __LINE__);
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  library.def(
      "attention(Tensor q, Tensor k, Tensor v, *, str kind=\"softmax\", float? scale=None, bool causal=False, Tensor? q2=None, Tensor? k2=None, "
      "Tensor? v2=None, Tensor? w_plus=None, Tensor? w_minus=None) -> Tensor",
      tags);
  library.def(
      "attention_packed(Tensor qkv, *, str kind=\"softmax\", float? scale=None, bool causal=False, Tensor? w_plus=None, "
      "Tensor? w_minus=None) -> Tensor",
      tags);
  library.def("_attention_forward(Tensor[] inputs, str kind, float scale, bool causal) -> (Tensor, Tensor)", tags);
  library.def("_attention_backward(Tensor dout, Tensor[] inputs, Tensor out, Tensor stats, str kind, float scale, bool causal) -> Tensor[]", tags);
  return library;
}

std::vector<torch::Library> make_libraries() {
  std::vector<torch::Library> libraries;
  // The program holds these functions and so does libuvit_ops.so: in a process with both, whoever comes first defines.
  if (c10::Dispatcher::singleton().findSchema({"uvit::attention", ""})) return libraries;
  libraries.push_back(definitions());
  torch::Library front(torch::Library::IMPL, "uvit", c10::DispatchKey::CompositeImplicitAutograd, __FILE__, __LINE__);
  front.impl("attention", TORCH_FN(attention_composite));
  front.impl("attention_packed", TORCH_FN(attention_packed_composite));
  libraries.push_back(std::move(front));
  libraries.push_back(fused_library(c10::DispatchKey::CPU, attention_forward_cpu, attention_backward_cpu));
#ifdef UVIT_HAS_CUDA
  libraries.push_back(fused_library(c10::DispatchKey::CUDA, attention_forward_cuda, attention_backward_cuda));
#endif
  libraries.push_back(fused_library(c10::DispatchKey::Meta, attention_forward_meta, attention_backward_meta));
  libraries.push_back(fused_library(c10::DispatchKey::Autograd, attention_forward_autograd, attention_backward_autograd));
  libraries.push_back(autocast_library<c10::kCPU>(c10::DispatchKey::AutocastCPU));
  libraries.push_back(autocast_library<c10::kCUDA>(c10::DispatchKey::AutocastCUDA));
  return libraries;
}

template <class Signature>
c10::TypedOperatorHandle<Signature> find_operator(const char* name) {
  register_operators();
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Signature>();
}

}  // namespace

void register_operators() { static const std::vector<torch::Library> libraries = make_libraries(); }

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::string_view kind, std::optional<double> scale, bool causal,
                     const AttentionExtras& extras) {
  static const auto op = find_operator<decltype(attention_composite)>("uvit::attention");
  return op.call(q, k, v, kind, scale, causal, optional_of(extras.q2), optional_of(extras.k2), optional_of(extras.v2), optional_of(extras.w_plus),
                 optional_of(extras.w_minus));
}

at::Tensor attention_packed(const at::Tensor& qkv, std::string_view kind, std::optional<double> scale, bool causal, const at::Tensor& w_plus,
                            const at::Tensor& w_minus) {
  static const auto op = find_operator<decltype(attention_packed_composite)>("uvit::attention_packed");
  return op.call(qkv, kind, scale, causal, optional_of(w_plus), optional_of(w_minus));
}

std::tuple<at::Tensor, at::Tensor> call_attention_forward(at::TensorList inputs, std::string_view kind, double scale, bool causal) {
  static const auto op = find_operator<decltype(attention_forward_cpu)>("uvit::_attention_forward");
  return op.call(inputs, kind, scale, causal);
}

std::vector<at::Tensor> call_attention_backward(const at::Tensor& dout, at::TensorList inputs, const at::Tensor& out, const at::Tensor& stats,
                                                std::string_view kind, double scale, bool causal) {
  static const auto op = find_operator<decltype(attention_backward_cpu)>("uvit::_attention_backward");
  return op.call(dout, inputs, out, stats, kind, scale, causal);
}

std::string plain_path_reason(c10::DeviceType device, at::ScalarType dtype, std::int64_t head_dim, std::int64_t value_dim) {
#ifdef UVIT_HAS_CUDA
  const std::string gpu_obstacle = device == c10::kCUDA ? cuda_kernels_obstacle() : "";
#else
  const std::string gpu_obstacle = device == c10::kCUDA ? "this build has no CUDA kernels" : "";
#endif
  if (!gpu_obstacle.empty()) return gpu_obstacle;
  const bool gpu = device == c10::kCUDA;
  if (!gpu && device != c10::kCPU && device != c10::kMeta) return fmt::format("there are no kernels for {}", c10::DeviceTypeName(device, true));
  if (dtype != at::kFloat && dtype != at::kBFloat16 && !(gpu && dtype == at::kHalf)) {
    return fmt::format("the kernels take float32{} bfloat16{}, not {}", gpu ? "," : " and", gpu ? " and float16" : "", c10::toString(dtype));
  }
  for (const auto& [name, width] : {std::pair("head_dim", head_dim), std::pair("value_dim", value_dim)}) {
    if (!kernels::attention_supported(width, width)) return fmt::format("{} {} is not a multiple of 8 up to 128", name, width);
  }
  return "";
}

}  // namespace uvit
