#include <stdexcept>

#include "kernels/norm/norm_cuda.h"
#include "kernels/norm/rows.cuh"

namespace uvit::kernels {
namespace cuda {
namespace {

UVIT_DEVICE float normal_cdf(float u) { return 0.5F * (1.0F + arch::erf(u * 0.70710678118654752F)); }
UVIT_DEVICE float normal_pdf(float u) { return 0.39894228040143268F * arch::exp(-0.5F * u * u); }

/// A warp works on 128 columns, four a lane, and goes down the rows: the bias and the sums over rows stay in registers.
struct Place {
  UVIT_DEVICE explicit Place(const BiasGeluParams& p)
      : column(kColumns * arch::block_index(1) + kVector * (arch::thread_index() % 32)),
        row(static_cast<std::int64_t>(kWarps) * arch::block_index(0) + arch::thread_index() / 32),
        step(static_cast<std::int64_t>(kWarps) * arch::grid_size(0)),
        inside(column < p.width) {}
  static constexpr int kColumns = 32 * kVector;
  int column;
  std::int64_t row, step;
  bool inside;
};

template <class T>
UVIT_KERNEL(kThreads, 8) void bias_gelu_kernel(const BiasGeluParams p) {
  const Place place(p);
  if (!place.inside) return;
  float bias[kVector];
  load_four(p.bias + place.column, bias);
  for (std::int64_t row = place.row; row < p.rows; row += place.step) {
    const std::int64_t at = row * p.width + place.column;
    float x[kVector];
    load_four(static_cast<const T*>(p.x) + at, x);
    for (int i = 0; i < kVector; ++i) {
      const float u = x[i] + bias[i];
      x[i] = u * normal_cdf(u);
    }
    store_four(static_cast<T*>(p.y) + at, x);
  }
}

template <class T>
UVIT_KERNEL(kThreads, 8) void bias_gelu_backward_kernel(const BiasGeluParams p, float* partial) {
  UVIT_SHARED_MEMORY(shared);
  const Place place(p);
  float bias[kVector], sum[kVector] = {};
  if (place.inside) {
    load_four(p.bias + place.column, bias);
    for (std::int64_t row = place.row; row < p.rows; row += place.step) {
      const std::int64_t at = row * p.width + place.column;
      float x[kVector], dy[kVector];
      load_four(static_cast<const T*>(p.x) + at, x);
      load_four(static_cast<const T*>(p.dy) + at, dy);
      for (int i = 0; i < kVector; ++i) {
        const float u = x[i] + bias[i];
        dy[i] *= normal_cdf(u) + u * normal_pdf(u);
        sum[i] += dy[i];
      }
      store_four(static_cast<T*>(p.dx) + at, dy);
    }
  }
  float* const sums = reinterpret_cast<float*>(shared);  // [warps, columns]
  store_shared_four(sums + kVector * arch::thread_index(), sum);
  arch::sync_block();
  if (arch::thread_index() >= 32 || !place.inside) return;
  for (int w = 1; w < kWarps; ++w) {
    float other[kVector];
    load_shared_four(sums + kVector * (32 * w + arch::thread_index()), other);
    for (int i = 0; i < kVector; ++i) sum[i] += other[i];
  }
  store_four(partial + p.width * arch::block_index(0) + place.column, sum);
}

template <class Run>
void with_type(Dtype dtype, const Run& run) {
  if (dtype == Dtype::f32) return run(float{});
  if (dtype == Dtype::bf16) return run(arch::bf16{});
  return run(arch::f16{});
}

void check(const BiasGeluParams& p) {
  if (!bias_gelu_supported_cuda(p.width)) throw std::invalid_argument("bias_gelu: width must be a multiple of 4 up to 65536");
  if (p.rows < 0 || p.rows > (std::int64_t{1} << 31) - 1) throw std::invalid_argument("bias_gelu: rows must be 0 to 2^31 - 1");
}

::uvit::cuda::LaunchShape shape_of(const BiasGeluParams& p, int shared_bytes) {
  return {{partial_blocks(p.rows), static_cast<int>((p.width + Place::kColumns - 1) / Place::kColumns), 1}, kThreads, shared_bytes};
}

}  // namespace
}  // namespace cuda

bool bias_gelu_supported_cuda(std::int64_t width) { return width >= cuda::kVector && width <= 65536 && width % cuda::kVector == 0; }

void bias_gelu_forward_cuda(const BiasGeluParams& params, void* stream) {
  using namespace cuda;
  check(params);
  with_type(params.dtype, [&](auto t) {
    const auto kernel = bias_gelu_kernel<decltype(t)>;
    ::uvit::cuda::launch("bias_gelu", kernel, shape_of(params, 0), static_cast<::uvit::cuda::Stream>(stream), params);
  });
}

void bias_gelu_backward_cuda(const BiasGeluParams& params, void* workspace, void* stream) {
  using namespace cuda;
  check(params);
  const auto queue = static_cast<::uvit::cuda::Stream>(stream);
  auto* const partial = static_cast<float*>(workspace);
  with_type(params.dtype, [&](auto t) {
    const auto kernel = bias_gelu_backward_kernel<decltype(t)>;
    ::uvit::cuda::launch("bias_gelu_backward", kernel, shape_of(params, kThreads * kVector * 4), queue, params, partial);
  });
  add_partials(partial, partial_blocks(params.rows), static_cast<int>(params.width), params.dbias, nullptr, queue);
}

}  // namespace uvit::kernels
