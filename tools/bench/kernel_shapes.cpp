// Prints what sass_report.py cannot read off machine code: for each tensor-core kernel its threads, its shared memory, and for each of its loops the
// tile and the fewest tensor-core instructions that the tile's products need. Compiled by g++; the kernels' headers are its only source.
#include <fmt/format.h>

#include "kernels/attention/cuda/backward.cuh"
#include "kernels/attention/cuda/forward.cuh"

namespace {

using namespace uvit::kernels::cuda;
using uvit::cuda::arch::bf16;
using uvit::cuda::arch::f16;

constexpr const char* kVariants[] = {"softmax", "cog", "other", "dual"};

/// m16n8k16 instructions of a warp for a product of `rows` x `columns` over `depth`.
constexpr int products(int rows, int columns, int depth) { return rows / 16 * (columns / 8) * (depth / 16); }

// kernel, template arguments as the demangled name has them, threads, shared bytes, then each loop: rows of a block, columns of a step, width, HMMA, products.
template <class T, int kWidth, Variant kVariant>
void print(const char* dtype) {
  constexpr int kind = static_cast<int>(kVariant);
  using Forward = ForwardKernel<T, kWidth, kVariant>;
  constexpr ForwardTile forward = forward_tile(kVariant, kWidth);
  constexpr int per_pair = products(16 * forward.row_tiles, forward.keys, kWidth), count = kVariant == Variant::dual ? 3 : 2;
  fmt::print("attention_forward_kernel {} {} {} {} {} {} forward:{}:{}:{}:{}:{}\n", dtype, kWidth, kind, kVariants[kind], Forward::kThreads,
             Forward::shared_bytes(false), forward.rows(), forward.keys, kWidth, count * per_pair, count);
  using Backward = BackwardKernel<T, kWidth, kVariant>;
  constexpr BackwardTile backward = backward_tile(kVariant, kWidth);
  constexpr int one = products(16, backward.step, kWidth);
  fmt::print("attention_backward_kernel {} {} {} {} {} {} dkdv:{}:{}:{}:{}:4 dq:{}:{}:{}:{}:3\n", dtype, kWidth, kind, kVariants[kind], Backward::kThreads,
             Backward::kSharedBytes, backward.rows(), backward.step, kWidth, 4 * one, backward.rows(), backward.step, kWidth, 3 * one);
}

template <class T, int kWidth>
void print_variants(const char* dtype) {
  print<T, kWidth, Variant::softmax>(dtype);
  print<T, kWidth, Variant::cog>(dtype);
  print<T, kWidth, Variant::other>(dtype);
  print<T, kWidth, Variant::dual>(dtype);
}

}  // namespace

int main() {
  print_variants<bf16, 64>("bf16");
  print_variants<bf16, 128>("bf16");
  print_variants<f16, 64>("f16");
  print_variants<f16, 128>("f16");
}
