#include <torch/torch.h>

#include "attention/cuda/fused_cuda.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "attention/cuda/devices.h"
#include "attention/fused_call.h"
#include "kernels/attention/cuda/attention_cuda.h"

namespace uvit {
namespace {

/// Device memory from the caching allocator: given back on return, and on the same stream handed out again only behind the call's kernels.
at::Tensor workspace_of(std::size_t bytes, const at::Tensor& like) {
  return at::empty({static_cast<std::int64_t>(bytes)}, like.options().dtype(at::kByte));
}

void* data_of(const at::Tensor& workspace) { return workspace.numel() == 0 ? nullptr : workspace.data_ptr(); }

cudaStream_t current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

}  // namespace

std::tuple<at::Tensor, at::Tensor> attention_forward_cuda(at::TensorList inputs, std::string_view kind, double scale, bool causal) {
  FusedCall call(inputs, kind, scale, causal);
  const c10::cuda::CUDAGuard device(inputs[0].device());
  auto [out, stats] = make_fused_outputs(inputs, call.params().kind);
  if (!call.has_rows()) return {out, stats};
  call.set_out(out, stats);
  const at::Tensor workspace = workspace_of(kernels::attention_forward_cuda_workspace(call.params()), inputs[0]);
  kernels::attention_forward_cuda(call.params(), data_of(workspace), current_stream());
  return {out, stats};
}

std::vector<at::Tensor> attention_backward_cuda(const at::Tensor& dout, at::TensorList inputs, const at::Tensor& out, const at::Tensor& stats,
                                                std::string_view kind, double scale, bool causal) {
  FusedCall call(inputs, kind, scale, causal);
  const c10::cuda::CUDAGuard device(inputs[0].device());
  std::vector<at::Tensor> gradients = make_fused_gradients(inputs, call.params().kind);
  if (!call.has_rows()) {
    for (at::Tensor& gradient : gradients) gradient.zero_();
    return gradients;
  }
  call.set_out(out, stats);
  call.set_dout(dout);
  call.set_gradients(gradients);
  const at::Tensor workspace = workspace_of(kernels::attention_backward_cuda_workspace(call.params()), inputs[0]);
  kernels::attention_backward_cuda(call.params(), data_of(workspace), current_stream());
  return gradients;
}

std::string cuda_kernels_obstacle() { return cuda_devices().empty() ? "" : cuda_obstacle(); }

}  // namespace uvit
