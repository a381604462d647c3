// The AMX instructions, each behind one thin function. A tile is 16 rows of 64 bytes at most; tile_config gives each of the eight its shape.
// Own assembly: GCC 12's tileloadd intrinsic does not tell the compiler that it reads memory, so a store before it could be moved behind it.
#include <cstdint>

namespace uvit::kernels::UVIT_ISA {

/// The operand of ldtilecfg, palette 1: rows and bytes a row of each tile.
struct alignas(64) TileConfig {
  std::uint8_t palette, start_row, reserved[14];
  std::uint16_t row_bytes[16];
  std::uint8_t rows[16];
};

static inline __attribute__((always_inline)) void tile_config(const TileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config)); }
static inline __attribute__((always_inline)) void tile_release() { asm volatile("tilerelease"); }
template <int kTile>
static inline __attribute__((always_inline)) void tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
/// Row r of the tile is what lies at from + r * stride cells.
template <int kTile>
static inline __attribute__((always_inline)) void tile_load(const float* from, std::int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(4 * stride), "i"(kTile) : "memory");
}
template <int kTile>
static inline __attribute__((always_inline)) void tile_store(float* to, std::int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(4 * stride), "i"(kTile) : "memory");
}
/// sum[m][n] += sum_k a[m][k] . b[k][n] over cells of two bfloat16, in float.
template <int kSum, int kA, int kB>
static inline __attribute__((always_inline)) void tile_dot() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}

}  // namespace uvit::kernels::UVIT_ISA
