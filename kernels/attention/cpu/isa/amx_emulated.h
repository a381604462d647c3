// The functions of amx.h in plain C++, for tests on machines without AMX: what Intel documents (Software Developer's Manual, volume 2, TDPBF16PS,
// LDTILECFG, TILELOADD, TILESTORED and the exception classes AMX-E1 to AMX-E6). What a processor answers with a fault throws TileFault.
#include <cstdint>

namespace uvit::kernels {

/// A processor would have raised #GP or #UD.
struct TileFault {
  const char* why;
};

namespace UVIT_ISA {

struct alignas(64) TileConfig {
  std::uint8_t palette, start_row, reserved[14];
  std::uint16_t row_bytes[16];
  std::uint8_t rows[16];
};

/// What one thread's tile registers hold.
struct TileState {
  static constexpr int kTiles = 8, kMaxRows = 16, kMaxRowBytes = 64;
  TileConfig config;
  std::uint32_t cells[kTiles][kMaxRows][kMaxRowBytes / 4];
};
static thread_local TileState tile_state = {};

static inline void fault_if(bool condition, const char* why) {
  if (condition) throw TileFault{why};
}
static inline void zero_tile(int tile) { __builtin_memset(tile_state.cells[tile], 0, sizeof(tile_state.cells[tile])); }

static inline void tile_release() { tile_state = {}; }
static inline void tile_config(const TileConfig& config) {
  fault_if(config.palette > 1, "ldtilecfg: palette above 1");
  if (config.palette == 0) return tile_release();
  fault_if(config.start_row != 0, "ldtilecfg: no instruction was interrupted, yet start_row is not 0");
  for (std::uint8_t byte : config.reserved) fault_if(byte != 0, "ldtilecfg: a reserved byte is not 0");
  for (int tile = 0; tile < 16; ++tile) {
    const int rows = config.rows[tile], bytes = config.row_bytes[tile];
    fault_if(tile >= TileState::kTiles && (rows || bytes), "ldtilecfg: a tile beyond the eighth has a shape");
    fault_if(rows > TileState::kMaxRows, "ldtilecfg: more than 16 rows");
    fault_if(bytes > TileState::kMaxRowBytes, "ldtilecfg: more than 64 bytes a row");
    fault_if((rows == 0) != (bytes == 0), "ldtilecfg: rows without bytes, or bytes without rows");
  }
  tile_state = {};
  tile_state.config = config;
}

static inline void check_tile(int tile, const char* why) { fault_if(tile_state.config.palette == 0 || tile_state.config.rows[tile] == 0, why); }

template <int kTile>
static inline void tile_zero() {
  fault_if(tile_state.config.palette == 0, "tilezero: tiles are not configured");
  zero_tile(kTile);
}
template <int kTile>
static inline void tile_load(const float* from, std::int64_t stride) {
  check_tile(kTile, "tileloadd: the tile has no shape");
  zero_tile(kTile);
  const char* bytes = reinterpret_cast<const char*>(from);
  for (int row = 0; row < tile_state.config.rows[kTile]; ++row)
    __builtin_memcpy(tile_state.cells[kTile][row], bytes + 4 * stride * row, tile_state.config.row_bytes[kTile]);
}
template <int kTile>
static inline void tile_store(float* to, std::int64_t stride) {
  check_tile(kTile, "tilestored: the tile has no shape");
  char* bytes = reinterpret_cast<char*>(to);
  for (int row = 0; row < tile_state.config.rows[kTile]; ++row)
    __builtin_memcpy(bytes + 4 * stride * row, tile_state.cells[kTile][row], tile_state.config.row_bytes[kTile]);
}

static inline float as_float(std::uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
static inline std::uint32_t as_bits(float x) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}
/// Denormals, as operands and as results, are zeros of their sign.
static inline float flush(float x) { return as_float(as_bits(x) & 0x7f800000u ? as_bits(x) : as_bits(x) & 0x80000000u); }

/// The even and the odd places of the sum are added up apart, each term by a fused multiply-add; then both to the destination.
static inline void dot_tiles(int sum, int a, int b) {
  const TileConfig& c = tile_state.config;
  fault_if(sum == a || sum == b || a == b, "tdpbf16ps: the same tile twice");
  const int tiles[] = {sum, a, b};
  for (int tile : tiles) {
    check_tile(tile, "tdpbf16ps: a tile has no shape");
    fault_if(c.row_bytes[tile] % 4 != 0, "tdpbf16ps: a row is not a number of pairs");
  }
  fault_if(c.rows[sum] != c.rows[a], "tdpbf16ps: the sum has not the rows of a");
  fault_if(c.row_bytes[a] / 4 != c.rows[b], "tdpbf16ps: b has not as many rows as a has pairs a row");
  fault_if(c.row_bytes[sum] != c.row_bytes[b], "tdpbf16ps: the sum has not the columns of b");
  constexpr int kColumns = TileState::kMaxRowBytes / 4;  // those beyond the tile's are not stored
  for (int m = 0; m < c.rows[sum]; ++m) {
    float even[kColumns] = {}, odd[kColumns] = {};
    for (int k = 0; k < c.row_bytes[a] / 4; ++k) {
      const std::uint32_t pair = tile_state.cells[a][m][k];
      const float a_even = flush(as_float(pair << 16)), a_odd = flush(as_float(pair & 0xffff0000u));
      for (int n = 0; n < kColumns; ++n) {
        even[n] = flush(__builtin_fmaf(a_even, flush(as_float(tile_state.cells[b][k][n] << 16)), even[n]));
        odd[n] = flush(__builtin_fmaf(a_odd, flush(as_float(tile_state.cells[b][k][n] & 0xffff0000u)), odd[n]));
      }
    }
    for (int n = 0; n < c.row_bytes[sum] / 4; ++n) {
      const float both = flush(even[n] + odd[n]);
      tile_state.cells[sum][m][n] = as_bits(flush(flush(as_float(tile_state.cells[sum][m][n])) + both));
    }
  }
  for (int m = c.rows[sum]; m < TileState::kMaxRows; ++m) __builtin_memset(tile_state.cells[sum][m], 0, TileState::kMaxRowBytes);
}
template <int kSum, int kA, int kB>
static inline void tile_dot() {
  dot_tiles(kSum, kA, kB);
}

}  // namespace UVIT_ISA
}  // namespace uvit::kernels
