#include <torch/torch.h>

#include "model/cuda/fused_tokens.h"

#include <ATen/autocast_mode.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/norm/norm_cuda.h"

namespace uvit {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool is_kernel_dtype(at::ScalarType dtype) { return dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf; }

kernels::Dtype kernel_dtype(const at::Tensor& x) {
  if (x.scalar_type() == at::kFloat) return kernels::Dtype::f32;
  return x.scalar_type() == at::kHalf ? kernels::Dtype::f16 : kernels::Dtype::bf16;
}

cudaStream_t current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

/// Contiguous, and vectors of four elements aligned: a view may begin anywhere.
at::Tensor readable(const at::Tensor& x) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) % (4 * x.element_size()) == 0;
  return aligned ? x.contiguous() : x.clone(at::MemoryFormat::Contiguous);
}

at::Tensor sums_workspace(std::int64_t rows, std::int64_t width, const at::Tensor& like) {
  return at::empty({static_cast<std::int64_t>(kernels::column_sums_workspace_cuda(rows, width))}, like.options().dtype(at::kByte));
}

void check_first_order(const char* what) {
  TORCH_CHECK(!at::GradMode::is_enabled(), "uvit: the fused ", what, " of the GPU cannot be differentiated twice; use float64 weights");
}

/// The dtype that the layer behind a norm computes in.
at::ScalarType result_dtype(const at::Tensor& x) {
  return at::autocast::is_autocast_enabled(at::kCUDA) ? at::autocast::get_autocast_dtype(at::kCUDA) : x.scalar_type();
}

kernels::AddLayerNormParams norm_params(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight, double eps) {
  kernels::AddLayerNormParams p;
  p.width = x.size(-1);
  p.rows = x.numel() / p.width;
  p.stream_dtype = kernel_dtype(x);
  p.branch_dtype = kernel_dtype(y);
  p.eps = static_cast<float>(eps);
  p.x = x.const_data_ptr();
  p.weight = weight.const_data_ptr<float>();
  return p;
}

/// Results {y} or, with a branch, {y, sum}.
class AddLayerNorm : public torch::autograd::Function<AddLayerNorm> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& x_given, const at::Tensor& branch_given, const at::Tensor& weight,
                               const at::Tensor& bias, double eps) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const c10::cuda::CUDAGuard device(x_given.device());
    const bool has_branch = branch_given.defined();
    const at::Tensor x = readable(x_given), branch = has_branch ? readable(branch_given) : at::Tensor();
    const at::Tensor y = at::empty(x.sizes(), x.options().dtype(has_branch ? branch.scalar_type() : result_dtype(x)));
    const at::Tensor sum = has_branch ? at::empty_like(x) : x;
    kernels::AddLayerNormParams p = norm_params(x, y, weight, eps);
    const at::Tensor mean = at::empty({p.rows}, x.options().dtype(at::kFloat)), rstd = at::empty_like(mean);
    p.branch = has_branch ? branch.const_data_ptr() : nullptr;
    p.sum = has_branch ? sum.data_ptr() : nullptr;
    p.y = y.data_ptr();
    p.bias = bias.const_data_ptr<float>();
    p.mean = mean.data_ptr<float>();
    p.rstd = rstd.data_ptr<float>();
    kernels::add_layer_norm_forward_cuda(p, current_stream());
    context->save_for_backward({sum, weight, mean, rstd});
    context->saved_data["has_branch"] = has_branch;
    context->saved_data["branch_dtype"] = static_cast<std::int64_t>(y.scalar_type());
    context->saved_data["eps"] = eps;
    context->set_materialize_grads(false);
    return has_branch ? variable_list{y, sum} : variable_list{y};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    check_first_order("LayerNorm");
    const bool has_branch = context->saved_data["has_branch"].toBool();
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &sum = saved[0], &weight = saved[1], dsum_given = has_branch ? gradients[1] : at::Tensor();
    if (!gradients[0].defined()) {  // the norm's result was not used
      const auto branch_dtype = static_cast<at::ScalarType>(context->saved_data["branch_dtype"].toInt());
      return {dsum_given, dsum_given.defined() ? dsum_given.to(branch_dtype) : at::Tensor(), {}, {}, {}};
    }
    const c10::cuda::CUDAGuard device(sum.device());
    const at::Tensor dy = readable(gradients[0]), dsum = dsum_given.defined() ? readable(dsum_given) : at::Tensor();
    const at::Tensor dx = at::empty_like(sum), dweight = at::empty_like(weight), dbias = at::empty_like(weight);
    const bool rounds_branch = has_branch && dy.scalar_type() != sum.scalar_type();
    const at::Tensor dbranch = rounds_branch ? at::empty_like(dy) : has_branch ? dx : at::Tensor();
    kernels::AddLayerNormParams p = norm_params(sum, dy, weight, context->saved_data["eps"].toDouble());
    p.mean = saved[2].data_ptr<float>();
    p.rstd = saved[3].data_ptr<float>();
    kernels::AddLayerNormGradients g;
    g.dy = dy.const_data_ptr();
    g.dsum = dsum.defined() ? dsum.const_data_ptr() : nullptr;
    g.dx = dx.data_ptr();
    g.dbranch = rounds_branch ? dbranch.data_ptr() : nullptr;
    g.dweight = dweight.data_ptr<float>();
    g.dbias = dbias.data_ptr<float>();
    const at::Tensor workspace = sums_workspace(p.rows, p.width, sum);
    kernels::add_layer_norm_backward_cuda(p, g, workspace.data_ptr(), current_stream());
    return {dx, dbranch, dweight, dbias, {}};
  }
};

kernels::BiasGeluParams gelu_params(const at::Tensor& x, const at::Tensor& bias) {
  kernels::BiasGeluParams p;
  p.width = x.size(-1);
  p.rows = x.numel() / p.width;
  p.dtype = kernel_dtype(x);
  p.x = x.const_data_ptr();
  p.bias = bias.const_data_ptr<float>();
  return p;
}

class BiasGelu : public torch::autograd::Function<BiasGelu> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_given, const at::Tensor& bias) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const c10::cuda::CUDAGuard device(x_given.device());
    const at::Tensor x = readable(x_given), y = at::empty_like(x);
    kernels::BiasGeluParams p = gelu_params(x, bias);
    p.y = y.data_ptr();
    kernels::bias_gelu_forward_cuda(p, current_stream());
    context->save_for_backward({x, bias});
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    check_first_order("GELU");
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &bias = saved[1];
    const c10::cuda::CUDAGuard device(x.device());
    const at::Tensor dy = readable(gradients[0]), dx = at::empty_like(x), dbias = at::empty_like(bias);
    kernels::BiasGeluParams p = gelu_params(x, bias);
    p.dy = dy.const_data_ptr();
    p.dx = dx.data_ptr();
    p.dbias = dbias.data_ptr<float>();
    const at::Tensor workspace = sums_workspace(p.rows, p.width, x);
    kernels::bias_gelu_backward_cuda(p, workspace.data_ptr(), current_stream());
    return {dx, dbias};
  }
};

}  // namespace

bool takes_fused_layer_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight) {
  if (!x.is_cuda() || x.numel() == 0 || weight.scalar_type() != at::kFloat || !kernels::add_layer_norm_supported_cuda(x.size(-1))) return false;
  const at::ScalarType result = result_dtype(x);
  if (branch.defined() && (branch.scalar_type() != result || branch.sizes() != x.sizes())) return false;
  return is_kernel_dtype(x.scalar_type()) && is_kernel_dtype(result) && (x.scalar_type() == at::kFloat || x.scalar_type() == result);
}

at::Tensor fused_layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  return AddLayerNorm::apply(x, at::Tensor(), weight, bias, eps)[0];
}

std::pair<at::Tensor, at::Tensor> fused_add_layer_norm(const at::Tensor& x, const at::Tensor& branch, const at::Tensor& weight,
                                                       const at::Tensor& bias, double eps) {
  const variable_list results = AddLayerNorm::apply(x, branch, weight, bias, eps);
  return {results[1], results[0]};
}

bool takes_fused_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::ScalarType product = result_dtype(x);
  return x.is_cuda() && x.numel() > 0 && bias.defined() && bias.scalar_type() == at::kFloat && is_kernel_dtype(product) &&
         kernels::bias_gelu_supported_cuda(weight.size(0));
}

at::Tensor fused_linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return BiasGelu::apply(at::linear(x, weight), bias);
}

}  // namespace uvit
