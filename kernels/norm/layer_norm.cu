#include <stdexcept>

#include "kernels/norm/norm_cuda.h"
#include "kernels/norm/rows.cuh"

namespace uvit::kernels {
namespace cuda {
namespace {

/// A warp a row. The row lies in shared memory between the passes, each lane on elements of its own: no barrier is needed.
/// S: dtype of the residual stream, T: of the branch and of y.
template <class S, class T>
UVIT_KERNEL(kThreads, 4) void add_layer_norm_kernel(const AddLayerNormParams p) {
  UVIT_SHARED_MEMORY(shared);
  const int warp = arch::thread_index() / 32, first = kVector * (arch::thread_index() % 32), width = static_cast<int>(p.width);
  const std::int64_t row = static_cast<std::int64_t>(kWarps) * arch::block_index(0) + warp;
  if (row >= p.rows) return;
  float* const kept = reinterpret_cast<float*>(shared) + width * warp;
  const S* const x = static_cast<const S*>(p.x) + row * width;
  const T* const branch = p.branch ? static_cast<const T*>(p.branch) + row * width : nullptr;

  float total = 0;
  for (int c = first; c < width; c += 32 * kVector) {
    float value[kVector];
    load_four(x + c, value);
    if (branch) {
      float add[kVector];
      load_four(branch + c, add);
      for (int i = 0; i < kVector; ++i) value[i] = arch::to_float(arch::from_float<S>(value[i] + add[i]));  // the sum that others see
      store_four(static_cast<S*>(p.sum) + row * width + c, value);
    }
    store_shared_four(kept + c, value);
    for (int i = 0; i < kVector; ++i) total += value[i];
  }
  const float mean = warp_sum(total) / static_cast<float>(width);

  float squares = 0;
  for (int c = first; c < width; c += 32 * kVector) {
    float value[kVector];
    load_shared_four(kept + c, value);
    for (int i = 0; i < kVector; ++i) squares += (value[i] - mean) * (value[i] - mean);
  }
  const float rstd = 1.0F / sqrtf(warp_sum(squares) / static_cast<float>(width) + p.eps);

  for (int c = first; c < width; c += 32 * kVector) {
    float value[kVector], weight[kVector], bias[kVector];
    load_shared_four(kept + c, value);
    load_four(p.weight + c, weight);
    load_four(p.bias + c, bias);
    for (int i = 0; i < kVector; ++i) value[i] = (value[i] - mean) * rstd * weight[i] + bias[i];
    store_four(static_cast<T*>(p.y) + row * width + c, value);
  }
  if (p.mean && first == 0) {
    p.mean[row] = mean;
    p.rstd[row] = rstd;
  }
}

struct BackwardArguments {
  AddLayerNormParams forward;
  AddLayerNormGradients out;
  float* partial;  ///< [blocks, 2, width]
};

/// dy weight and the normalised input of four elements.
template <class S, class T>
struct FourTerms {
  UVIT_DEVICE FourTerms(const BackwardArguments& a, const void* input, std::int64_t at, int column, float mean, float rstd) {
    float weight[kVector];
    load_four(static_cast<const T*>(a.out.dy) + at, dy);
    load_four(static_cast<const S*>(input) + at, n);
    load_four(a.forward.weight + column, weight);
    for (int i = 0; i < kVector; ++i) {
      n[i] = (n[i] - mean) * rstd;
      g[i] = dy[i] * weight[i];
    }
  }
  float dy[kVector], n[kVector], g[kVector];
};

/// A warp's sums over its rows, of each column: in shared memory, each lane on columns of its own until reduce.
class ColumnSums {
 public:
  UVIT_DEVICE ColumnSums(unsigned char* shared, int width) : all_(reinterpret_cast<float*>(shared)), width_(width) {
    const float zeros[kVector] = {};
    own_ = all_ + 2 * width * (arch::thread_index() / 32);
    for (int c = kVector * (arch::thread_index() % 32); c < 2 * width; c += 32 * kVector) store_shared_four(own_ + c, zeros);
    arch::sync_warp();  // the halves' borders are no multiple of what a warp zeroes at once
  }

  UVIT_DEVICE void add(int column, const float (&first)[kVector], const float (&second)[kVector]) {
    add_at(own_ + column, first);
    add_at(own_ + width_ + column, second);
  }

  /// The block's sums, its warps added in order, to partial [2, width]. All threads come here.
  UVIT_DEVICE void reduce(float* partial) const {
    arch::sync_block();
    for (int c = arch::thread_index(); c < 2 * width_; c += kThreads) {
      float sum = 0;
      for (int w = 0; w < kWarps; ++w) sum += all_[2 * width_ * w + c];
      partial[c] = sum;
    }
  }

 private:
  UVIT_DEVICE static void add_at(float* to, const float (&from)[kVector]) {
    float sum[kVector];
    load_shared_four(to, sum);
    for (int i = 0; i < kVector; ++i) sum[i] += from[i];
    store_shared_four(to, sum);
  }
  float *all_, *own_;
  int width_;
};

/// A warp a row, then the next of its rows; the row is read twice, the second time from cache.
template <class S, class T>
UVIT_KERNEL(kThreads, 4) void add_layer_norm_backward_kernel(const BackwardArguments a) {
  UVIT_SHARED_MEMORY(shared);
  const AddLayerNormParams& p = a.forward;
  const int first = kVector * (arch::thread_index() % 32), width = static_cast<int>(p.width);
  const void* const input = p.branch ? p.sum : p.x;
  ColumnSums sums(shared, width);
  const std::int64_t step = static_cast<std::int64_t>(kWarps) * arch::grid_size(0);
  for (std::int64_t row = static_cast<std::int64_t>(kWarps) * arch::block_index(0) + arch::thread_index() / 32; row < p.rows; row += step) {
    const float mean = p.mean[row], rstd = p.rstd[row];
    float sum_g = 0, sum_gn = 0;
    for (int c = first; c < width; c += 32 * kVector) {
      const FourTerms<S, T> t(a, input, row * width + c, c, mean, rstd);
      float dy_n[kVector];
      for (int i = 0; i < kVector; ++i) {
        sum_g += t.g[i];
        sum_gn += t.g[i] * t.n[i];
        dy_n[i] = t.dy[i] * t.n[i];
      }
      sums.add(c, dy_n, t.dy);
    }
    const float mean_g = warp_sum(sum_g) / static_cast<float>(width), mean_gn = warp_sum(sum_gn) / static_cast<float>(width);
    for (int c = first; c < width; c += 32 * kVector) {
      const std::int64_t at = row * width + c;
      const FourTerms<S, T> t(a, input, at, c, mean, rstd);
      float dx[kVector] = {};
      if (a.out.dsum) load_four(static_cast<const S*>(a.out.dsum) + at, dx);
      for (int i = 0; i < kVector; ++i) dx[i] += rstd * (t.g[i] - mean_g - t.n[i] * mean_gn);
      store_four(static_cast<S*>(a.out.dx) + at, dx);
      if (a.out.dbranch) store_four(static_cast<T*>(a.out.dbranch) + at, dx);
    }
  }
  sums.reduce(a.partial + static_cast<std::int64_t>(2 * width) * arch::block_index(0));
}

/// Calls run with values of the two element types.
template <class Run>
void with_types(Dtype stream, Dtype branch, const Run& run) {
  if (stream == Dtype::f32 && branch == Dtype::f32) return run(float{}, float{});
  if (stream == Dtype::f32 && branch == Dtype::bf16) return run(float{}, arch::bf16{});
  if (stream == Dtype::f32 && branch == Dtype::f16) return run(float{}, arch::f16{});
  if (stream == Dtype::bf16 && branch == Dtype::bf16) return run(arch::bf16{}, arch::bf16{});
  if (stream == Dtype::f16 && branch == Dtype::f16) return run(arch::f16{}, arch::f16{});
  throw std::invalid_argument("add_layer_norm: branch_dtype must be stream_dtype, or a 16-bit one beside float32");
}

void check(const AddLayerNormParams& p) {
  if (!add_layer_norm_supported_cuda(p.width)) throw std::invalid_argument("add_layer_norm: width must be a multiple of 4 up to 3072");
  if (p.rows < 0 || p.rows > (std::int64_t{1} << 31) - 1) throw std::invalid_argument("add_layer_norm: rows must be 0 to 2^31 - 1");
}

}  // namespace
}  // namespace cuda

// 3072: 96 KiB of shared memory in backward, the most that every GPU from sm_80 on gives a block.
bool add_layer_norm_supported_cuda(std::int64_t width) { return width >= cuda::kVector && width <= 3072 && width % cuda::kVector == 0; }

void add_layer_norm_forward_cuda(const AddLayerNormParams& params, void* stream) {
  using namespace cuda;
  check(params);
  const int blocks = static_cast<int>((params.rows + kWarps - 1) / kWarps), width = static_cast<int>(params.width);
  const ::uvit::cuda::LaunchShape shape{{blocks, 1, 1}, kThreads, kWarps * width * 4};
  with_types(params.stream_dtype, params.branch_dtype, [&](auto s, auto t) {
    const auto kernel = add_layer_norm_kernel<decltype(s), decltype(t)>;
    ::uvit::cuda::launch("add_layer_norm", kernel, shape, static_cast<::uvit::cuda::Stream>(stream), params);
  });
}

void add_layer_norm_backward_cuda(const AddLayerNormParams& params, const AddLayerNormGradients& gradients, void* workspace, void* stream) {
  using namespace cuda;
  check(params);
  const auto queue = static_cast<::uvit::cuda::Stream>(stream);
  const int blocks = partial_blocks(params.rows), width = static_cast<int>(params.width);
  const BackwardArguments arguments{params, gradients, static_cast<float*>(workspace)};
  const ::uvit::cuda::LaunchShape shape{{blocks, 1, 1}, kThreads, kWarps * 2 * width * 4};
  with_types(params.stream_dtype, params.branch_dtype, [&](auto s, auto t) {
    const auto kernel = add_layer_norm_backward_kernel<decltype(s), decltype(t)>;
    ::uvit::cuda::launch("add_layer_norm_backward", kernel, shape, queue, arguments);
  });
  add_partials(arguments.partial, blocks, width, gradients.dweight, gradients.dbias, queue);
}

}  // namespace uvit::kernels
