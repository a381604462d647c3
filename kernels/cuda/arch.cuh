#pragma once
// What the CUDA kernels may use of the machine. Every PTX instruction and every intrinsic stands here behind one thin function; no other file of
// the project holds inline assembly, warp intrinsics, `extern __shared__`, threadIdx or <<< >>>. Under nvcc the functions are PTX for sm_80 and
// newer; under g++ they are those of the emulator in tests/cuda_on_cpu, so that the same kernel source is run, and checked, without a GPU.
//
//   types        bf16, f16 (2 bytes of storage; float stands for itself), Words<N> (N = 1, 2, 4: 4 N bytes, so aligned), Pair {lo, hi}
//   indices      thread_index() block_index(dim) grid_size(dim) block_threads(): blocks have one dimension and whole warps, grids up to three
//   tensor core  mma_m16n8k16<T>(c, a, b0, b1)   T = bf16, f16;   mma_m16n8k8_tf32(c, a, b0, b1) with to_tf32(x)
//                ldmatrix_x4, ldmatrix_x4_trans, ldmatrix_x2, ldmatrix_x2_trans
//   async copy   cp_async_16(shared, global, valid) cp_async_commit() cp_async_wait<N>()
//   conversions  pack2<T>(lo, hi) unpack2<T>(bits) to_float(x) from_float<T>(x), round to nearest even
//                high_halves(lo, hi) nonzero_halves(bits): signs and zeros of two floats for two packed values
//   warp, block  shuffle_xor(v, mask) shuffle(v, lane) warp_any(p) warp_all(p) sync_warp() sync_block(): by all lanes, by all threads
//   memory       load_global<N>(p) load_readonly<N>(p) store_global(p, words) load_shared<N>(p) store_shared(p, words)
//   arithmetic   exp2_fast log2_fast reciprocal_fast rsqrt_fast tanh_fast; exp log erf (accurate); masked(score, visible)
//                and the C functions fmaxf fminf fabsf copysignf fmaf sqrtf
//   macros       UVIT_DEVICE              before a device function
//                UVIT_KERNEL(threads, blocks_per_sm) void name(Params p)
//                UVIT_SHARED_MEMORY(name) unsigned char* name: the block's dynamic shared memory, 128-byte aligned, whatever it held before
//                UVIT_UNROLL              before a loop that must be unrolled
//
// Fragment layouts (lane l: g = l >> 2, t = l & 3; PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type"):
//   A, element i of 8 (register i >> 1): row g + 8 ((i >> 1) & 1), k = 2t + (i & 1) + 8 (i >> 2)
//   B, element i of 4:                   k = 2t + (i & 1) + 8 (i >> 1), column g
//   C, element i of 4:                   row g + 8 (i >> 1), column 2t + (i & 1)
//   ldmatrix: lane 8i + r names the address of row r of matrix i; lane l gets M[g][2t], M[g][2t + 1], and with trans M[2t][g], M[2t + 1][g].
//   tf32 m16n8k8: A register i: row g + 8 (i & 1), k = t + 4 (i >> 1); B register i: k = t + 4 i, column g; C as above.
#include <cmath>
#include <cstdint>

namespace uvit::cuda::arch {

struct bf16 {
  std::uint16_t bits;
};
struct f16 {
  std::uint16_t bits;
};
template <int N>
struct alignas(4 * N) Words {
  std::uint32_t w[N];
};
struct Pair {
  float lo, hi;
};

}  // namespace uvit::cuda::arch

#ifndef __CUDACC__
#include "cuda_on_cpu/arch_emulated.h"
#else
#include <cuda_runtime.h>

#define UVIT_DEVICE __device__ __forceinline__
#define UVIT_KERNEL(threads, blocks_per_sm) __global__ __launch_bounds__(threads, blocks_per_sm)
#define UVIT_SHARED_MEMORY(name)                                         \
  extern __shared__ __align__(128) unsigned char uvit_shared_memory_[]; \
  unsigned char* const name = uvit_shared_memory_
#define UVIT_UNROLL _Pragma("unroll")

namespace uvit::cuda::arch {

inline constexpr unsigned kAllLanes = 0xffffffffu;

// ---- indices
UVIT_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
UVIT_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }
/// dim must be a constant where it is used in a hot place: 0, 1 or 2.
UVIT_DEVICE int block_index(int dim) { return static_cast<int>(dim == 0 ? blockIdx.x : dim == 1 ? blockIdx.y : blockIdx.z); }
UVIT_DEVICE int grid_size(int dim) { return static_cast<int>(dim == 0 ? gridDim.x : dim == 1 ? gridDim.y : gridDim.z); }

// ---- conversions
UVIT_DEVICE float to_float(float x) { return x; }
UVIT_DEVICE float to_float(bf16 x) { return __uint_as_float(static_cast<std::uint32_t>(x.bits) << 16); }
UVIT_DEVICE float to_float(f16 x) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits));
  return r;
}
template <class T>
UVIT_DEVICE T from_float(float x);
template <>
UVIT_DEVICE float from_float<float>(float x) {
  return x;
}
template <>
UVIT_DEVICE bf16 from_float<bf16>(float x) {
  bf16 r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
  return r;
}
template <>
UVIT_DEVICE f16 from_float<f16>(float x) {
  f16 r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(x));
  return r;
}
/// Two values in one register, lo in the low half.
template <class T>
UVIT_DEVICE std::uint32_t pack2(float lo, float hi);
template <>
UVIT_DEVICE std::uint32_t pack2<bf16>(float lo, float hi) {
  std::uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
template <>
UVIT_DEVICE std::uint32_t pack2<f16>(float lo, float hi) {
  std::uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
template <class T>
UVIT_DEVICE Pair unpack2(std::uint32_t bits) {
  return {to_float(T{static_cast<std::uint16_t>(bits)}), to_float(T{static_cast<std::uint16_t>(bits >> 16)})};
}
/// The nearest number of 10 fraction bits (ties away from 0), as mma_m16n8k8_tf32 takes it.
UVIT_DEVICE std::uint32_t to_tf32(float x) {
  std::uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return r;
}

/// The upper 16 bits of two floats, those of lo in the low half: their signs, and 0 but for the sign where a float is 0 (or below 2^-133).
UVIT_DEVICE std::uint32_t high_halves(float lo, float hi) { return __byte_perm(__float_as_uint(lo), __float_as_uint(hi), 0x7632); }
/// 0xffff in each half that is not 0 but for its top bit.
UVIT_DEVICE std::uint32_t nonzero_halves(std::uint32_t bits) {
  std::uint32_t r;
  asm("set.neu.u32.f16x2 %0, %1, %2;" : "=r"(r) : "r"(bits), "r"(0));
  return r;
}

// ---- tensor core: c += a b
template <class T>
UVIT_DEVICE void mma_m16n8k16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1);
template <>
UVIT_DEVICE void mma_m16n8k16<bf16>(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
UVIT_DEVICE void mma_m16n8k16<f16>(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
UVIT_DEVICE void mma_m16n8k8_tf32(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

UVIT_DEVICE std::uint32_t shared_address(const void* p) { return static_cast<std::uint32_t>(__cvta_generic_to_shared(p)); }
UVIT_DEVICE void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
UVIT_DEVICE void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
/// Addresses of lanes 0 .. 15 count.
UVIT_DEVICE void ldmatrix_x2(std::uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}
UVIT_DEVICE void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}

// ---- asynchronous copies. Both addresses are multiples of 16; where !valid the target gets zeros and the source is not read.
UVIT_DEVICE void cp_async_16(void* shared, const void* global, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes) : "memory");
}
UVIT_DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Until at most the thread's own N newest groups are under way. Other threads see the data after a barrier.
template <int N>
UVIT_DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ---- warp and block
template <class V>
UVIT_DEVICE V shuffle_xor(V v, int mask) {
  static_assert(sizeof(V) == 4, "4-byte values");
  return __shfl_xor_sync(kAllLanes, v, mask);
}
template <class V>
UVIT_DEVICE V shuffle(V v, int lane) {
  static_assert(sizeof(V) == 4, "4-byte values");
  return __shfl_sync(kAllLanes, v, lane);
}
UVIT_DEVICE bool warp_any(bool p) { return __any_sync(kAllLanes, p); }
UVIT_DEVICE bool warp_all(bool p) { return __all_sync(kAllLanes, p); }
UVIT_DEVICE void sync_warp() { __syncwarp(); }
UVIT_DEVICE void sync_block() { __syncthreads(); }

// ---- memory: addresses are multiples of 4 N
template <int N>
UVIT_DEVICE Words<N> load_global(const void* p) {
  return *static_cast<const Words<N>*>(p);
}
/// For memory that the kernel does not write.
template <int N>
UVIT_DEVICE Words<N> load_readonly(const void* p) {
  Words<N> r;
  if constexpr (N == 4)
    asm("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(r.w[0]), "=r"(r.w[1]), "=r"(r.w[2]), "=r"(r.w[3]) : "l"(p));
  else if constexpr (N == 2)
    asm("ld.global.nc.v2.u32 {%0,%1}, [%2];" : "=r"(r.w[0]), "=r"(r.w[1]) : "l"(p));
  else
    asm("ld.global.nc.u32 %0, [%1];" : "=r"(r.w[0]) : "l"(p));
  return r;
}
template <int N>
UVIT_DEVICE void store_global(void* p, const Words<N>& words) {
  *static_cast<Words<N>*>(p) = words;
}
template <int N>
UVIT_DEVICE Words<N> load_shared(const void* p) {
  return *static_cast<const Words<N>*>(p);
}
template <int N>
UVIT_DEVICE void store_shared(void* p, const Words<N>& words) {
  *static_cast<Words<N>*>(p) = words;
}

// ---- arithmetic. The fast functions flush subnormal numbers; relative errors by the PTX ISA.
UVIT_DEVICE float exp2_fast(float x) {  ///< 2^x, error 2^-22
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
UVIT_DEVICE float log2_fast(float x) {  ///< log2 x, absolute error 2^-22 near 1
  float r;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
UVIT_DEVICE float reciprocal_fast(float x) {  ///< 1 / x, error 2^-23
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
UVIT_DEVICE float rsqrt_fast(float x) {  ///< 1 / sqrt(x), error 2^-22.9
  float r;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
UVIT_DEVICE float tanh_fast(float x) {  ///< error 2^-10.987: enough for 16-bit results only
  float r;
  asm("tanh.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
UVIT_DEVICE float exp(float x) { return expf(x); }
UVIT_DEVICE float log(float x) { return logf(x); }
UVIT_DEVICE float erf(float x) { return erff(x); }
/// The score of a key where the query sees it, else -infinity. All masks of scores go through here, so that a test can take them away.
UVIT_DEVICE float masked(float score, bool visible) { return visible ? score : -INFINITY; }

}  // namespace uvit::cuda::arch
#endif
