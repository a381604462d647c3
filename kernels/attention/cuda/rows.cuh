#pragma once
// The small kernels around the two large ones; all sums in a fixed order.
#include <type_traits>

#include "kernels/attention/cuda/tile.cuh"
#include "kernels/attention/cuda/tile_size.h"

namespace uvit::kernels::cuda {

/// Rows of a block: a warp takes one; of float32 tensors a thread does.
template <class T>
inline constexpr int kRowsOfBlock = sizeof(T) == 4 ? kRowsThreads : kRowsThreads / 32;

/// facts[row] from the statistics of forward, with delta = rowsum(dout * (o + addend)), or rowsum(dout * part). In float32 the sum has the order of
/// the product dout v^T in backward_f32.cuh: where one key has all the weight, dP - delta is then exactly 0.
template <class T>
UVIT_KERNEL(kRowsThreads, 8)
void prepare_rows_kernel(const RowsArguments a) {
  constexpr bool kThreadRow = sizeof(T) == 4;
  const Problem& p = a.problem;
  const int lane = kThreadRow ? 0 : arch::thread_index() & 31, in_block = kThreadRow ? arch::thread_index() : arch::thread_index() >> 5;
  const std::int64_t row = static_cast<std::int64_t>(arch::block_index(0)) * kRowsOfBlock<T> + in_block;
  if (row >= p.rows) return;
  const int head = static_cast<int>(row / p.L), i = static_cast<int>(row - static_cast<std::int64_t>(head) * p.L), b = head / p.H, h = head - b * p.H;
  const T* dout = head_of<T>(a.dout, b, h) + i * a.dout.stride_l;
  const T* o = a.part == nullptr ? head_of<T>(a.o, b, h) + i * a.o.stride_l : nullptr;
  const float hi = a.stats[row], lo = a.stats[p.rows + row];
  const bool visible = hi != -INFINITY;
  float delta = 0;
  for (int pair = 2 * lane; visible && pair < p.Dv; pair += kThreadRow ? 2 : 64)
    for (int column = pair; column < pair + 2; ++column) {
      const float x = a.part == nullptr ? arch::to_float(o[column]) + addend_at(a.addend, head, h, i, column) : a.part[row * p.Dv + column];
      delta = fmaf(arch::to_float(dout[column]), x, delta);
    }
  if (!kThreadRow)
    for (int mask = 16; mask > 0; mask >>= 1) delta += arch::shuffle_xor(delta, mask);
  if (lane != 0) return;
  using Math = std::conditional_t<kThreadRow, AccurateMath, DeviceMath>;
  RowFacts facts{hi, lo, 0, delta};
  if (p.kind == Kind::softpick) facts.unit = Math::exp(-hi), facts.lo = Math::exp(-lo);
  if (!visible) facts = {INFINITY, 0, 0, 0};  // every weight is e^-infinity
  a.facts[row] = facts;
}

/// PrefixArguments says what: one thread a column of one head.
template <class T>
UVIT_KERNEL(kPrefixThreads, 4)
void prefix_kernel(const PrefixArguments a) {
  const int head = arch::block_index(0), b = head / a.H, h = head - b * a.H, column = arch::thread_index();
  if (column >= a.Dv) return;
  const T* x = head_of<T>(a.x, b, h) + column;
  const int rows_out = a.causal ? a.Lk : 1;
  float* out = a.out + static_cast<std::int64_t>(head) * rows_out * a.Dv + column;
  double sum = 0;
  if (a.means) {
    for (int j = 0; j < a.Lk; ++j) {
      sum += arch::to_float(x[j * a.x.stride_l]);
      if (a.causal || j == a.Lk - 1) out[static_cast<std::int64_t>(a.causal ? j : 0) * a.Dv] = static_cast<float>(sum / (j + 1));
    }
    return;
  }
  // Query i sees n_i = i + 1 + Lk - L keys (at most Lk, all without causality), so key j is seen by the queries from j + L - Lk on.
  int i = a.L - 1;
  for (int j = rows_out - 1; j >= 0; --j) {
    const int first = a.causal && j + a.L - a.Lk > 0 ? j + a.L - a.Lk : 0;
    for (; i >= first; --i) sum += static_cast<double>(arch::to_float(x[i * a.x.stride_l])) / (a.causal ? i + 1 + a.Lk - a.L : a.Lk);
    out[static_cast<std::int64_t>(j) * a.Dv] = static_cast<float>(sum);
  }
}

/// Block h + H * half: the gradient of one head's weight.
UVIT_KERNEL(kSumThreads, 4)
void weight_sum_kernel(const WeightSumArguments a) {
  UVIT_SHARED_MEMORY(shared);
  double* partial = reinterpret_cast<double*>(shared);
  const int half = arch::block_index(0) / a.H, h = arch::block_index(0) - half * a.H, thread = arch::thread_index();
  const RowFacts* facts = half == 0 ? a.facts[0] : a.facts[1];
  float* out = half == 0 ? a.out[0] : a.out[1];
  double sum = 0;
  for (int b = 0; b < a.B; ++b)
    for (int i = thread; i < a.L; i += kSumThreads) sum += facts[(static_cast<std::int64_t>(b) * a.H + h) * a.L + i].delta;
  partial[thread] = sum;
  for (int step = kSumThreads / 2; step > 0; step /= 2) {
    arch::sync_block();
    if (thread < step) partial[thread] += partial[thread + step];
  }
  if (thread == 0 && out != nullptr) out[h] = (half == 0 ? a.sign[0] : a.sign[1]) * static_cast<float>(partial[0]);
}

}  // namespace uvit::kernels::cuda
