// The products of gemm.h on AMX tiles, for packed cells of two bfloat16. A tile of a is 16 rows of 16 cells, a tile of b 16 lines of 16 columns, a
// tile of c 16 x 16 floats; the micro-kernel has 2 x 2 tiles of c, and two of each operand in the other four registers.
// Rows, columns and depth are whole tiles in memory: rows of c beyond the operand's hold numbers that nobody reads, and sums are padded with zeros.
// One depth cannot be padded, that of a head's width (its cells have no room): tiles of a divisor of it take its place.
#include "kernels/attention/cpu/isa/pack.h"
#ifdef UVIT_AMX_EMULATED
#include "kernels/attention/cpu/isa/amx_emulated.h"
#else
#include "kernels/attention/cpu/isa/amx.h"
#endif

namespace uvit::kernels::UVIT_ISA {

constexpr int kTileSide = 16;
constexpr std::int64_t kMaxHeadCells = 64, kMaxSlice = 2 * kSlice;

/// Every tile full, but for the depth of a and b: 0 to 3 are of c, 4 and 5 of a, 6 and 7 of b.
static void configure_tiles(std::int64_t depth) {
  TileConfig config = {};
  config.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    config.rows[tile] = static_cast<std::uint8_t>(tile < 6 ? kTileSide : depth);
    config.row_bytes[tile] = static_cast<std::uint16_t>(4 * (tile == 4 || tile == 5 ? depth : kTileSide));
  }
  tile_config(config);
}

/// As PairCells; the thread's tiles are configured while a Session lives, and given back after it so that a switch of threads need not save them.
struct TileCells : PairCells {
  static constexpr std::int64_t kDepth = kTileSide;
  struct Session {
    Session() { configure_tiles(kTileSide); }
    ~Session() { tile_release(); }
  };
};

/// Depth of the tiles for a head of `cells` cells: the largest divisor that fits. A width is a multiple of 8 up to 128, so it is at least 10, or all.
constexpr std::int64_t head_tile_depth(std::int64_t cells) {
  std::int64_t depth = cells < kTileSide ? cells : kTileSide;
  while (cells % depth != 0) --depth;
  return depth;
}

/// c [16 kM, 16 kN] (+)= a b over `depth` cells, tiles of `step`.
template <int kM, int kN>
static void tile_kernel(std::int64_t depth, std::int64_t step, const float* a, std::int64_t a_row, const float* b, std::int64_t b_row, float* c,
                        std::int64_t c_row, bool add) {
  if (add) {
    tile_load<0>(c, c_row);
    if constexpr (kN > 1) tile_load<1>(c + kTileSide, c_row);
    if constexpr (kM > 1) tile_load<2>(c + kTileSide * c_row, c_row);
    if constexpr (kM > 1 && kN > 1) tile_load<3>(c + kTileSide * c_row + kTileSide, c_row);
  } else {
    tile_zero<0>();
    if constexpr (kN > 1) tile_zero<1>();
    if constexpr (kM > 1) tile_zero<2>();
    if constexpr (kM > 1 && kN > 1) tile_zero<3>();
  }
  for (std::int64_t k = 0; k < depth; k += step, a += step, b += step * b_row) {
    tile_load<6>(b, b_row);
    tile_load<4>(a, a_row);
    tile_dot<0, 4, 6>();
    if constexpr (kM > 1) tile_load<5>(a + kTileSide * a_row, a_row);
    if constexpr (kM > 1) tile_dot<2, 5, 6>();
    if constexpr (kN > 1) tile_load<7>(b + kTileSide, b_row);
    if constexpr (kN > 1) tile_dot<1, 4, 7>();
    if constexpr (kM > 1 && kN > 1) tile_dot<3, 5, 7>();
  }
  tile_store<0>(c, c_row);
  if constexpr (kN > 1) tile_store<1>(c + kTileSide, c_row);
  if constexpr (kM > 1) tile_store<2>(c + kTileSide * c_row, c_row);
  if constexpr (kM > 1 && kN > 1) tile_store<3>(c + kTileSide * c_row + kTileSide, c_row);
}

/// c [rows, 16 or 32 columns]; rows up to the next multiple of 16.
static void tile_columns(std::int64_t rows, std::int64_t vecs, std::int64_t depth, std::int64_t step, const float* a, std::int64_t a_row,
                         const float* b, std::int64_t b_row, float* c, std::int64_t c_row, bool add) {
  for (std::int64_t i = 0; i < rows; i += 2 * kTileSide) {
    const bool two_rows = rows - i > kTileSide;
    const auto kernel = vecs > 1 ? (two_rows ? tile_kernel<2, 2> : tile_kernel<1, 2>) : two_rows ? tile_kernel<2, 1> : tile_kernel<1, 1>;
    kernel(depth, step, a + i * a_row, a_row, b, b_row, c + i * c_row, c_row, add);
  }
}

template <>
void multiply_panels<TileCells>(std::int64_t rows, std::int64_t vecs, std::int64_t depth, const float* a, std::int64_t a_row, const float* b,
                                float* c, std::int64_t c_row) {
  const std::int64_t step = head_tile_depth(depth);
  if (step != kTileSide) configure_tiles(step);
  for (std::int64_t v = 0; v < vecs; v += 2)
    tile_columns(rows, vecs - v, depth, step, a, a_row, b + v / kBlockVecs * kBlockColumns * depth + v % kBlockVecs * kLanes, kBlockColumns,
                 c + v * kLanes, c_row, false);
  if (step != kTileSide) configure_tiles(kTileSide);
}

/// to [32, to_row] = rows i of the operand whose cells (i, k) lie at from[i + k * from_k]; zeros beyond the depth, up to a whole tile.
static void transpose_operand(const float* from, std::int64_t from_k, std::int64_t rows, std::int64_t depth, float* to, std::int64_t to_row) {
  for (std::int64_t i = 0; i < rows; i += kTileSide)
    for (std::int64_t k = 0; k < depth; k += kTileSide) {
      Vec block[kTileSide];
      if (k + kTileSide <= depth)
#pragma GCC unroll 16
        for (int j = 0; j < kTileSide; ++j) block[j] = load(from + i + (k + j) * from_k);
      else
        for (int j = 0; j < kTileSide; ++j) block[j] = k + j < depth ? load(from + i + (k + j) * from_k) : Vec{};
      transpose_block(block);
#pragma GCC unroll 16
      for (int j = 0; j < kTileSide; ++j) store(to + (i + j) * to_row + k, block[j]);
    }
}

/// One slice of the sum, with a's cells along its rows (a_k = 1), or across them.
static void tile_slice(std::int64_t rows, std::int64_t vecs, std::int64_t depth, const float* a, std::int64_t a_row, std::int64_t a_k, const float* b,
                       std::int64_t b_row, float* c, std::int64_t c_row, bool add) {
  constexpr std::int64_t kRowsAtOnce = 2 * kTileSide;
  const std::int64_t padded = round_up(depth, kTileSide);
  if (a_k == 1) {
    for (std::int64_t v = 0; v < vecs; v += 2)
      tile_columns(rows, vecs - v, padded, kTileSide, a, a_row, b + v * kLanes, b_row, c + v * kLanes, c_row, add);
    return;
  }
  alignas(64) float transposed[kRowsAtOnce * (kMaxSlice + kTileSide)];
  const std::int64_t row = padded + kTileSide;  // not a power of two: rows would fall on the same cache sets
  for (std::int64_t i = 0; i < rows; i += kRowsAtOnce) {
    const std::int64_t some = rows - i < kRowsAtOnce ? rows - i : kRowsAtOnce;
    transpose_operand(a + i, a_k, some, depth, transposed, row);
    for (std::int64_t v = 0; v < vecs; v += 2)
      tile_columns(some, vecs - v, padded, kTileSide, transposed, row, b + v * kLanes, b_row, c + i * c_row + v * kLanes, c_row, add);
  }
}

template <>
void multiply_rows<TileCells>(std::int64_t rows, std::int64_t vecs, std::int64_t depth, const float* a, std::int64_t a_row, std::int64_t a_k,
                              const float* b, std::int64_t b_row, float* c, std::int64_t c_row, bool add) {
  const std::int64_t slice = slice_of<TileCells>(depth);
  for (std::int64_t k = 0; k < depth || (k == 0 && !add); k += slice)
    tile_slice(rows, vecs, depth - k < slice ? depth - k : slice, a + k * a_k, a_row, a_k, b + k * b_row, b_row, c, c_row, add || k > 0);
}

template <class C>
static void row_deltas(const Matrix& dout, const Matrix& o, std::int64_t begin, std::int64_t rows, float* delta);

/// The diagonal of dout o^T, by the instructions that make dp = dout v^T, in their order.
template <>
void row_deltas<TileCells>(const Matrix& dout, const Matrix& o, std::int64_t begin, std::int64_t rows, float* delta) {
  alignas(64) float a[kTileSide * kMaxHeadCells], b[kMaxHeadCells * kBlockColumns], products[kTileSide * kTileSide];
  for (std::int64_t r = 0; r < rows; r += kTileSide) {
    const std::int64_t some = rows - r < kTileSide ? rows - r : kTileSide;
    pack_along<TileCells>(dout, begin + r, some, a, kMaxHeadCells);
    pack_transposed<TileCells>({o.row(begin + r), o.row_bytes, o.width}, some, b);
    multiply_panels<TileCells>(kTileSide, 1, dout.width / TileCells::kPair, a, kMaxHeadCells, b, products, kTileSide);
    for (std::int64_t i = 0; i < some; ++i) delta[r + i] = products[i * (kTileSide + 1)];
  }
}

}  // namespace uvit::kernels::UVIT_ISA
