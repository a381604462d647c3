// The emulator's own tests: warp and block operations.
#include <catch2/catch.hpp>

#include "cuda_on_cpu/emulator.h"
#include "kernels/cuda/launch.cuh"

namespace uvit::cuda {
namespace {

using arch::bf16;
using emulator::Buffer;

struct ProductParams {
  const bf16 *a, *b;  // [16, 16] row by row; [8, 16]: column by column of B
  float* c;           // [16, 8]
};

// c = a b by one mma, its operands through shared memory and ldmatrix.
template <class T>
UVIT_KERNEL(32, 1) void product_kernel(ProductParams p) {
  UVIT_SHARED_MEMORY(shared);
  const int lane = arch::thread_index();
  for (int i = lane; i < 32 + 16; i += 32) {
    const bf16* source = i < 32 ? p.a + 8 * i : p.b + 8 * (i - 32);
    arch::cp_async_16(shared + 16 * i, source, true);
  }
  arch::cp_async_commit();
  arch::cp_async_wait<0>();
  arch::sync_warp();
  std::uint32_t a[4], b[2];
  arch::ldmatrix_x4(a, shared + (lane & 15) * 32 + (lane >> 4) * 16);
  arch::ldmatrix_x2(b, shared + 512 + (lane & 7) * 32 + ((lane >> 3) & 1) * 16);
  float c[4] = {};
  arch::mma_m16n8k16<T>(c, a, b[0], b[1]);
  const int g = lane >> 2, t = lane & 3;
  for (int i = 0; i < 4; ++i) p.c[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)] = c[i];
}

TEST_CASE("CUDA emulator: a product through cp.async, ldmatrix and mma", "[cuda]") {
  Buffer<bf16> a("a", 256), b("b", 128);
  Buffer<float> c("c", 128);
  for (int i = 0; i < 256; ++i) a[static_cast<std::size_t>(i)] = arch::from_float<bf16>(static_cast<float>(i % 7 - 3));
  for (int i = 0; i < 128; ++i) b[static_cast<std::size_t>(i)] = arch::from_float<bf16>(static_cast<float>(i % 5 - 2));
  for (std::uint32_t seed = 0; seed < 3; ++seed) {
    emulator::Scope scope({seed, {}, false});
    launch("product", product_kernel<bf16>, {{1, 1, 1}, 32, 768}, nullptr, {a.data(), b.data(), c.data()});
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 8; ++n) {
        float sum = 0;
        for (int k = 0; k < 16; ++k) sum += static_cast<float>((16 * m + k) % 7 - 3) * static_cast<float>((16 * n + k) % 5 - 2);
        REQUIRE(c[static_cast<std::size_t>(8 * m + n)] == sum);
      }
    CHECK(scope.counters().mma == 1);
  }
}

}  // namespace
}  // namespace uvit::cuda
