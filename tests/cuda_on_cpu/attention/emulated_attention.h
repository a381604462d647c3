#pragma once
// The CUDA attention in the emulator, on the problems of tests/kernels/attention_case.h.
#include <memory>

#include "cuda_on_cpu/emulator.h"
#include "kernels/attention/cuda/attention_cuda.h"
#include "tests/kernels/attention_case.h"

namespace uvit::test {

/// Emulated global memory for the operands of one call, filled from the host's and copied back at the end.
class EmulatedOperands {
 public:
  EmulatedOperands(const AttentionParams& host, bool with_parts) : device(host), host_(host) {
    const bool two_scores = kernels::has_second_scores(host.kind), two_values = kernels::has_second_value(host.kind);
    for (auto* view : {&device.q, &device.dout}) input(*view, host.L, view == &device.q ? host.D : host.Dv);
    for (auto* view : {&device.k, &device.v}) input(*view, host.Lk, view == &device.k ? host.D : host.Dv);
    if (two_scores) input(device.q2, host.L, host.D), input(device.k2, host.Lk, host.D);
    if (two_values) input(device.v2, host.Lk, host.Dv);
    output(device.o, host.L, host.Dv), output(device.dq, host.L, host.D), output(device.dk, host.Lk, host.D), output(device.dv, host.Lk, host.Dv);
    if (two_scores) output(device.dq2, host.L, host.D), output(device.dk2, host.Lk, host.D);
    if (two_values) output(device.dv2, host.Lk, host.Dv);
    const std::int64_t rows = host.B * host.H * host.L;
    device.stats = floats(host.stats, kernels::stats_per_row(host.kind) * rows, true);
    device.w_plus = floats(const_cast<float*>(host.w_plus), kernels::has_w_plus(host.kind) ? host.H : 0, false);
    device.w_minus = floats(const_cast<float*>(host.w_minus), kernels::has_w_minus(host.kind) ? host.H : 0, false);
    device.dw_plus = floats(host.dw_plus, kernels::has_w_plus(host.kind) ? host.H : 0, true);
    device.dw_minus = floats(host.dw_minus, kernels::has_w_minus(host.kind) ? host.H : 0, true);
    if (with_parts && kernels::has_two_normalisers(host.kind)) device.parts = scratch<float>(kernels::attention_parts_floats_cuda(host));
  }
  /// Forward and backward, and the results back to the host.
  void run() {
    kernels::attention_forward_cuda(device, scratch<unsigned char>(attention_forward_cuda_workspace(device)), nullptr);
    kernels::attention_backward_cuda(device, scratch<unsigned char>(attention_backward_cuda_workspace(device)), nullptr);
    for (const Copy& copy : back_) std::memcpy(copy.host, copy.device, copy.bytes);
  }
  AttentionParams device;

 private:
  struct Copy {
    void* host;
    const void* device;
    std::size_t bytes;
  };
  using Bytes = cuda::emulator::Buffer<unsigned char>;
  const AttentionParams& host_;
  std::vector<std::unique_ptr<Bytes>> memory_;
  std::vector<Copy> back_;

  template <class X>
  X* scratch(std::size_t count) {
    if (count == 0) return nullptr;
    memory_.push_back(std::make_unique<Bytes>("operand " + std::to_string(memory_.size()), count * sizeof(X)));
    return reinterpret_cast<X*>(memory_.back()->data());
  }
  void* upload(const void* host, std::size_t bytes) {
    unsigned char* copy = scratch<unsigned char>(bytes);
    if (bytes > 0) std::memcpy(copy, host, bytes);
    return copy;
  }
  template <class V>
  std::size_t extent(const V& view, std::int64_t length, std::int64_t width) const {
    const std::int64_t size = host_.dtype == Dtype::f32 ? 4 : 2;
    if (host_.B * host_.H * length == 0) return 0;
    return static_cast<std::size_t>(
        size * ((host_.B - 1) * view.stride_b + (host_.H - 1) * view.stride_h + (length - 1) * view.stride_l + width));
  }
  void input(kernels::View& view, std::int64_t length, std::int64_t width) { view.data = upload(view.data, extent(view, length, width)); }
  void output(kernels::MutableView& view, std::int64_t length, std::int64_t width) {
    const std::size_t bytes = extent(view, length, width);
    void* host = view.data;
    view.data = upload(host, bytes);
    if (bytes > 0) back_.push_back({host, view.data, bytes});
  }
  float* floats(float* host, std::int64_t count, bool is_output) {
    if (count == 0) return nullptr;
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(float);
    auto* copy = static_cast<float*>(upload(host, bytes));
    if (is_output) back_.push_back({host, copy, bytes});
    return copy;
  }
};

/// The CUDA kernels on a problem; rows begin at multiples of 16 bytes, one tensor's heads side by side.
inline FusedRun emulate(const Reference& problem, Dtype dtype, bool with_parts = true) {
  return FusedRun(problem, dtype, dtype == Dtype::f32 ? 1 : 8, [&](AttentionParams& p) { EmulatedOperands(p, with_parts).run(); });
}

inline std::string describe(const Reference& r, Dtype dtype) {
  return std::string("cuda ") + kind_name(r.kind) + (r.causal ? " causal " : " ") + dtype_name(dtype) + " B" + std::to_string(r.B) + " H" +
         std::to_string(r.H) + " L" + std::to_string(r.L) + " Lk" + std::to_string(r.Lk) + " D" + std::to_string(r.D) + " Dv" + std::to_string(r.Dv);
}

/// Against double, within the error of plain operations in the dtype (attention_case.h).
inline void check_emulated(const Reference& problem, Dtype dtype, bool with_parts = true) {
  Reference exact = problem, plain = problem;
  exact.forward();
  exact.backward();
  PlainAttention(plain, dtype).run();
  FusedRun run = emulate(problem, dtype, with_parts);
  check_against_plain(describe(problem, dtype), run.result, exact, plain, dtype);
}

}  // namespace uvit::test
