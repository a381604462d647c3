#pragma once
// The emulator's side of kernels/cuda/arch.cuh: the same functions, with one argument more, the place of the call, which defaults to where it is
// written. Errors and seeded faults name it.
#include <bit>
#include <cstddef>
#include <source_location>

#include "cuda_on_cpu/run_grid.h"

#define UVIT_DEVICE inline
#define UVIT_KERNEL(threads, blocks_per_sm) inline
#define UVIT_SHARED_MEMORY(name) unsigned char* const name = ::uvit::cuda::emulator::shared_memory()
#define UVIT_UNROLL

namespace uvit::cuda::emulator {

using Site = std::source_location;

unsigned char* shared_memory();

// What the templates below stand on.
enum class Element { bf16, f16, tf32 };
void mma(Element element, float* c, const std::uint32_t* a, const std::uint32_t* b, Site site);
void load_matrices(std::uint32_t* registers, int count, bool transposed, const void* row, Site site);
std::uint32_t shuffle_bits(std::uint32_t bits, int lane, bool is_xor, Site site);
void wait_async(int groups_left, Site site);
void load(void* to, const void* from, int bytes, bool shared, Site site);
void store(void* to, const void* from, int bytes, bool shared, Site site);
std::uint16_t round_to_bf16(float x);
std::uint16_t round_to_f16(float x);
float f16_to_float(std::uint16_t bits);

}  // namespace uvit::cuda::emulator

namespace uvit::cuda::arch {

using emulator::Site;

int thread_index();
int block_threads();
int block_index(int dim);
int grid_size(int dim);

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }
inline float to_float(f16 x) { return emulator::f16_to_float(x.bits); }
template <class T>
T from_float(float x);
template <>
inline float from_float<float>(float x) {
  return x;
}
template <>
inline bf16 from_float<bf16>(float x) {
  return {emulator::round_to_bf16(x)};
}
template <>
inline f16 from_float<f16>(float x) {
  return {emulator::round_to_f16(x)};
}
template <class T>
std::uint32_t pack2(float lo, float hi) {
  return from_float<T>(lo).bits | static_cast<std::uint32_t>(from_float<T>(hi).bits) << 16;
}
template <class T>
Pair unpack2(std::uint32_t bits) {
  return {to_float(T{static_cast<std::uint16_t>(bits)}), to_float(T{static_cast<std::uint16_t>(bits >> 16)})};
}
std::uint32_t to_tf32(float x);
inline std::uint32_t high_halves(float lo, float hi) {
  return std::bit_cast<std::uint32_t>(lo) >> 16 | (std::bit_cast<std::uint32_t>(hi) & 0xffff0000u);
}
inline std::uint32_t nonzero_halves(std::uint32_t bits) {
  return (bits & 0x7fffu ? 0xffffu : 0) | (bits & 0x7fff0000u ? 0xffff0000u : 0);
}

template <class T>
void mma_m16n8k16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1, Site site = Site::current()) {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, f16>);
  const std::uint32_t b[2] = {b0, b1};
  emulator::mma(std::is_same_v<T, bf16> ? emulator::Element::bf16 : emulator::Element::f16, c, a, b, site);
}
inline void mma_m16n8k8_tf32(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1, Site site = Site::current()) {
  const std::uint32_t b[2] = {b0, b1};
  emulator::mma(emulator::Element::tf32, c, a, b, site);
}
inline void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, Site site = Site::current()) { emulator::load_matrices(r, 4, false, row, site); }
inline void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* row, Site site = Site::current()) { emulator::load_matrices(r, 4, true, row, site); }
inline void ldmatrix_x2(std::uint32_t (&r)[2], const void* row, Site site = Site::current()) { emulator::load_matrices(r, 2, false, row, site); }
inline void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* row, Site site = Site::current()) { emulator::load_matrices(r, 2, true, row, site); }

void cp_async_16(void* shared, const void* global, bool valid, Site site = Site::current());
void cp_async_commit();
template <int N>
void cp_async_wait(Site site = Site::current()) {
  emulator::wait_async(N, site);
}

template <class V>
V shuffle_xor(V v, int mask, Site site = Site::current()) {
  return std::bit_cast<V>(emulator::shuffle_bits(std::bit_cast<std::uint32_t>(v), mask, true, site));
}
template <class V>
V shuffle(V v, int lane, Site site = Site::current()) {
  return std::bit_cast<V>(emulator::shuffle_bits(std::bit_cast<std::uint32_t>(v), lane, false, site));
}
bool warp_any(bool p, Site site = Site::current());
bool warp_all(bool p, Site site = Site::current());
void sync_warp(Site site = Site::current());
void sync_block(Site site = Site::current());

template <int N>
Words<N> load_global(const void* p, Site site = Site::current()) {
  Words<N> r;
  emulator::load(r.w, p, 4 * N, false, site);
  return r;
}
template <int N>
Words<N> load_readonly(const void* p, Site site = Site::current()) {
  return load_global<N>(p, site);
}
template <int N>
void store_global(void* p, const Words<N>& words, Site site = Site::current()) {
  emulator::store(p, words.w, 4 * N, false, site);
}
template <int N>
Words<N> load_shared(const void* p, Site site = Site::current()) {
  Words<N> r;
  emulator::load(r.w, p, 4 * N, true, site);
  return r;
}
template <int N>
void store_shared(void* p, const Words<N>& words, Site site = Site::current()) {
  emulator::store(p, words.w, 4 * N, true, site);
}

// Off by as much as the PTX ISA allows, up or down by the argument's bits: a kernel that needs more than it may fails here too.
float exp2_fast(float x);
float log2_fast(float x);
float reciprocal_fast(float x);
float rsqrt_fast(float x);
float tanh_fast(float x);
inline float exp(float x) { return std::exp(x); }
inline float log(float x) { return std::log(x); }
inline float erf(float x) { return std::erf(x); }
float masked(float score, bool visible, Site site = Site::current());

}  // namespace uvit::cuda::arch
