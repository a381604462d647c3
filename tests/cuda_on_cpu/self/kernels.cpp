#include "cuda_on_cpu/self/kernels.h"

namespace uvit::cuda::self {
namespace {

struct FragmentParams {
  Product product;
  Fragments* f;
};
UVIT_KERNEL(32, 1) void fragment_kernel(FragmentParams p) {
  const int lane = arch::thread_index();
  auto& a = p.f->a[lane];
  auto& b = p.f->b[lane];
  auto& c = p.f->c[lane];
  if (p.product == Product::bf16) arch::mma_m16n8k16<bf16>(c, a, b[0], b[1]);
  if (p.product == Product::f16) arch::mma_m16n8k16<f16>(c, a, b[0], b[1]);
  if (p.product == Product::tf32) arch::mma_m16n8k8_tf32(c, a, b[0], b[1]);
}

struct LoadParams {
  const std::uint16_t* matrices;
  std::uint32_t* out;
  bool transposed, two;
};
UVIT_KERNEL(32, 1) void load_kernel(LoadParams p) {
  UVIT_SHARED_MEMORY(shared);
  const int lane = arch::thread_index();
  arch::store_shared(shared + 16 * lane, arch::load_readonly<4>(p.matrices + 8 * lane));
  arch::sync_warp();
  std::uint32_t r[4] = {}, r2[2] = {};
  const unsigned char* row = shared + 16 * lane;
  if (p.two) {
    if (p.transposed)
      arch::ldmatrix_x2_trans(r2, row);
    else
      arch::ldmatrix_x2(r2, row);
    r[0] = r2[0], r[1] = r2[1];
  } else if (p.transposed) {
    arch::ldmatrix_x4_trans(r, row);
  } else {
    arch::ldmatrix_x4(r, row);
  }
  for (int i = 0; i < 4; ++i) p.out[4 * lane + i] = r[i];
}

struct ProductParams {
  const bf16 *a, *b;
  float* c;
};
UVIT_KERNEL(32, 1) void product_kernel(ProductParams p) {
  UVIT_SHARED_MEMORY(shared);
  const int lane = arch::thread_index();
  for (int i = lane; i < 32 + 16; i += 32) arch::cp_async_16(shared + 16 * i, i < 32 ? p.a + 8 * i : p.b + 8 * (i - 32), true);
  arch::cp_async_commit();
  arch::cp_async_wait<0>();
  arch::sync_warp();
  std::uint32_t a[4], b[2];
  arch::ldmatrix_x4(a, shared + (lane & 15) * 32 + (lane >> 4) * 16);
  arch::ldmatrix_x2(b, shared + 512 + (lane & 7) * 32 + ((lane >> 3) & 1) * 16);
  float c[4] = {};
  arch::mma_m16n8k16<bf16>(c, a, b[0], b[1]);
  const int g = lane >> 2, t = lane & 3;
  for (int i = 0; i < 4; ++i) p.c[(g + 8 * (i >> 1)) * 8 + 2 * t + (i & 1)] = c[i];
}

struct ShuffleParams {
  const float* in;
  float* out;
  int mask, from;
  float threshold;
};
UVIT_KERNEL(32, 1) void shuffle_kernel(ShuffleParams p) {
  const int lane = arch::thread_index();
  const float x = p.in[lane];
  p.out[lane] = arch::shuffle_xor(x, p.mask);
  p.out[32 + lane] = arch::shuffle(x, p.from);
  const bool any = arch::warp_any(x > p.threshold), all = arch::warp_all(x > p.threshold);
  if (lane == 7) p.out[64] = any, p.out[65] = all;
}

struct CopyParams {
  const float* in;
  float* out;
  int valid;
};
UVIT_KERNEL(32, 1) void copy_kernel(CopyParams p) {
  UVIT_SHARED_MEMORY(shared);
  const int lane = arch::thread_index();
  float* target = reinterpret_cast<float*>(shared) + 4 * lane;
  for (int i = 0; i < 256; i += 128) {
    arch::cp_async_16(target + i, p.in + i + 4 * lane, lane < p.valid);
    arch::cp_async_commit();
  }
  const auto keep = [&](int stage) {
    p.out[64 * stage + lane] = target[0];
    p.out[64 * stage + 32 + lane] = target[128];
  };
  keep(0);
  arch::cp_async_wait<1>();
  keep(1);
  arch::cp_async_wait<0>();
  keep(2);
}

struct FreshParams {
  float* out;
  int words;
};
UVIT_KERNEL(32, 1) void fresh_kernel(FreshParams p) {
  UVIT_SHARED_MEMORY(shared);
  for (int i = arch::thread_index(); i < p.words; i += 32) {
    p.out[i] = reinterpret_cast<float*>(shared)[i];
    reinterpret_cast<float*>(shared)[i] = 1;  // the next block must not see it
  }
}

struct NumberParams {
  int* out;
};
UVIT_KERNEL(64, 1) void number_kernel(NumberParams p) {
  const int x = arch::block_index(0), y = arch::block_index(1), z = arch::block_index(2);
  const int block = (z * arch::grid_size(1) + y) * arch::grid_size(0) + x;
  int* out = p.out + 5 * (block * arch::block_threads() + arch::thread_index());
  out[0] = x, out[1] = y, out[2] = z, out[3] = arch::thread_index(), out[4] = arch::block_threads() + 100 * arch::grid_size(2);
}

struct StrideParams {
  int stride, words;
};
UVIT_KERNEL(32, 1) void ldmatrix_stride_kernel(StrideParams p) {
  UVIT_SHARED_MEMORY(shared);
  unsigned char* at = shared + p.stride * arch::thread_index();
  for (int i = 0; i < 4; ++i) reinterpret_cast<volatile float*>(at)[i] = 0;
  arch::sync_block();
  std::uint32_t r[4];
  arch::ldmatrix_x4(r, at);
}
UVIT_KERNEL(32, 1) void store_stride_kernel(StrideParams p) {
  UVIT_SHARED_MEMORY(shared);
  unsigned char* at = shared + p.stride * arch::thread_index();
  if (p.words == 1) arch::store_shared(at, arch::Words<1>{});
  if (p.words == 2) arch::store_shared(at, arch::Words<2>{});
  if (p.words == 4) arch::store_shared(at, arch::Words<4>{});
}

struct WrongParams {
  Wrong wrong;
  float* global;
  int count;
};

int recurse(int depth) {
  volatile int frame[64];
  frame[depth & 63] = depth;
  if (depth < 0) return 0;
  return recurse(depth + 1) + frame[depth & 63];
}

UVIT_DEVICE void diverge(const WrongParams& p, int thread) {
  const bool first = (thread & 31) < 16;
  switch (p.wrong) {
    case Wrong::barrier_by_half:
      if (thread < 32) arch::sync_block();
      break;
    case Wrong::diverging_barrier:
      if (first)
        arch::sync_block();
      else
        arch::shuffle(1.0f, 0);
      break;
    case Wrong::diverging_lines:
      if (first)
        arch::shuffle(1.0f, 0);
      else
        arch::shuffle(1.0f, 0);
      break;
    case Wrong::lane_has_ended:
      if (thread != 3) arch::shuffle(1.0f, 0);
      break;
    case Wrong::barrier_after_end:
      if (thread != 63) arch::sync_block();
      break;
    case Wrong::shuffle_lane_32:
      arch::shuffle(1.0f, 32);
      break;
    default:
      break;
  }
}

UVIT_DEVICE void stray(const WrongParams& p, unsigned char* shared, int thread) {
  std::uint32_t r[4];
  switch (p.wrong) {
    case Wrong::pending_at_end:
      arch::cp_async_16(shared + 16 * thread, p.global, true);
      arch::cp_async_commit();
      break;
    case Wrong::ldmatrix_past_shared:
      arch::store_shared(shared + 16 * thread, arch::Words<4>{});
      arch::sync_block();
      arch::ldmatrix_x4(r, shared + 1024 - 31 * 16 + 16 * (thread & 31));
      break;
    case Wrong::ldmatrix_misaligned:
      arch::ldmatrix_x4(r, shared + 8);
      break;
    case Wrong::copy_past_shared:
      arch::cp_async_16(shared + 1024, p.global, true);
      break;
    case Wrong::copy_from_past_global:
      arch::cp_async_16(shared, p.global + p.count, true);
      break;
    case Wrong::copy_misaligned:
      arch::cp_async_16(shared, p.global + 1, true);
      break;
    case Wrong::load_past_global:
      arch::load_global<2>(p.global + p.count - 1);
      break;
    case Wrong::load_misaligned:
      arch::load_readonly<4>(p.global + 2);
      break;
    case Wrong::store_before_shared:
      arch::store_shared(shared - 4, arch::Words<1>{});
      break;
    case Wrong::plain_read_past_global:
      p.global[0] = const_cast<volatile float*>(p.global)[p.count];
      break;
    case Wrong::plain_write_past_shared:
      const_cast<volatile unsigned char*>(shared)[1024] = 1;
      break;
    case Wrong::endless_recursion:
      p.global[0] = static_cast<float>(recurse(0));
      break;
    default:
      break;
  }
}

UVIT_KERNEL(64, 1) void wrong_kernel(WrongParams p) {
  UVIT_SHARED_MEMORY(shared);
  diverge(p, arch::thread_index());
  stray(p, shared, arch::thread_index());
}

struct RaceParams {
  Race race;
  float* global;
};

// Thread 0 is of the first warp, thread 1 too, thread 32 of the second.
UVIT_DEVICE void race_between_warps(Race race, volatile float* shared, int thread) {
  const bool is_writer_first = race != Race::read_then_write && race != Race::read_then_write_barrier;
  const bool has_barrier = race == Race::write_then_read_barrier || race == Race::read_then_write_barrier;
  if (thread == 5) shared[0] = 1;  // something to read
  arch::sync_block();
  if (thread == (is_writer_first ? 0 : 32)) shared[0] = 2;
  if (has_barrier) arch::sync_block();
  if (race == Race::sync_warp_between_warps) arch::sync_warp();
  if (thread == (is_writer_first ? 32 : 0)) {
    if (race == Race::write_then_write)
      shared[0] = 3;
    else
      shared[1] = shared[0];
  }
}

UVIT_DEVICE void race_in_warp(Race race, volatile float* shared, int thread) {
  if (thread == 1) shared[0] = 0;
  arch::sync_block();
  if (thread == 0) shared[0] = 1;
  if (race == Race::in_warp_sync_warp) arch::sync_warp();
  if (race == Race::in_warp_shuffle) arch::shuffle_xor(1.0f, 1);
  if (thread == 1) shared[1] = shared[0];
}

UVIT_DEVICE void race_of_copies(Race race, unsigned char* shared, const float* global, int thread) {
  volatile float* values = reinterpret_cast<volatile float*>(shared);
  if (race == Race::copy_over_reads) {
    if (thread == 0) values[0] = 1;
    arch::sync_block();
    if (thread == 32) values[8] = values[0];
  }
  if (thread == 0) arch::cp_async_16(shared, global, true);
  arch::cp_async_commit();
  if (race == Race::copy_read_early && thread == 0) values[8] = values[0];
  arch::cp_async_wait<0>();
  if (race == Race::copy_with_barrier) arch::sync_block();
  if ((race == Race::copy_with_barrier || race == Race::copy_without_barrier) && thread == 32) values[8] = values[3];
}

UVIT_DEVICE void race_in_global(Race race, float* global, int thread) {
  volatile float* values = global;
  const int block = arch::block_index(0);
  switch (race) {
    case Race::global_between_warps:
    case Race::global_between_warps_barrier:
      if (thread == 0) values[4 * block] = 1;
      if (race == Race::global_between_warps_barrier) arch::sync_block();
      if (thread == 32) values[4 * block + 1] = values[4 * block];
      break;
    case Race::global_between_blocks:
      if (thread == 0) values[0] = 1;
      break;
    case Race::global_read_by_blocks:
      values[64 + 64 * block + thread] = values[0];
      break;
    case Race::global_write_read_blocks:
      if (thread == 0) values[1 + block] = values[0];
      if (thread == 0 && block == 1) values[0] = 1;
      break;
    default:
      break;
  }
}

UVIT_KERNEL(64, 1) void race_kernel(RaceParams p) {
  UVIT_SHARED_MEMORY(shared);
  volatile float* values = reinterpret_cast<volatile float*>(shared);
  const int thread = arch::thread_index();
  if (p.race <= Race::write_then_write || p.race == Race::sync_warp_between_warps)
    race_between_warps(p.race, values, thread);
  else if (p.race <= Race::in_warp_shuffle)
    race_in_warp(p.race, values, thread);
  else if (p.race <= Race::copy_read_early)
    race_of_copies(p.race, shared, p.global, thread);
  else if (p.race == Race::unwritten_shared)
    values[1] = values[0];
  else if (p.race == Race::misaligned)
    *reinterpret_cast<volatile float*>(shared + 4 * thread + (thread == 9 ? 2 : 0)) = 1;
  else if (p.race == Race::past_shared_plain)
    values[250 + thread / 8] = 1;  // 1000 bytes: 250 floats
  else
    race_in_global(p.race, p.global, thread);
}

}  // namespace

void multiply_fragments(Product product, Fragments* fragments) { launch("fragments", fragment_kernel, {}, nullptr, {product, fragments}); }
void load_matrices(const std::uint16_t* matrices, std::uint32_t* out, bool transposed, bool two) {
  launch("load_matrices", load_kernel, {{1, 1, 1}, 32, 512}, nullptr, {matrices, out, transposed, two});
}
void multiply(const bf16* a, const bf16* b, float* c) { launch("multiply", product_kernel, {{1, 1, 1}, 32, 768}, nullptr, {a, b, c}); }
void shuffle(const float* in, float* out, int mask, int from, float threshold) {
  launch("shuffle", shuffle_kernel, {}, nullptr, {in, out, mask, from, threshold});
}
void copy(const float* in, float* out, int valid) { launch("copy", copy_kernel, {{1, 1, 1}, 32, 1024}, nullptr, {in, out, valid}); }
void read_fresh(float* out, int words) { launch("fresh", fresh_kernel, {{3, 1, 1}, 32, 4 * words}, nullptr, {out, words}); }
void number_threads(int* out) { launch("number", number_kernel, {{2, 3, 2}, 64, 0}, nullptr, {out}); }
void ldmatrix_stride(int stride) { launch("ldmatrix_stride", ldmatrix_stride_kernel, {{1, 1, 1}, 32, 31 * stride + 16}, nullptr, {stride, 0}); }
void store_stride(int stride, int words) {
  launch("store_stride", store_stride_kernel, {{1, 1, 1}, 32, 31 * stride + 4 * words}, nullptr, {stride, words});
}
void do_wrong(Wrong wrong, float* global, int count) { launch("wrong", wrong_kernel, {{1, 1, 1}, 64, 1024}, nullptr, {wrong, global, count}); }
void race(Race race, float* global) {
  const bool is_global = race >= Race::global_between_warps && race <= Race::global_write_read_blocks;
  const int blocks = is_global || race == Race::write_then_read_barrier ? 3 : 1;  // the shared memory of one block is not that of the next
  launch("race", race_kernel, {{blocks, 1, 1}, 64, race == Race::past_shared_plain ? 1000 : 1024}, nullptr, {race, global});
}

}  // namespace uvit::cuda::self
