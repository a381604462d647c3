// What forward and backward share: scratch, the piece of work, rows' visible keys.
#ifdef UVIT_TILES
#include "kernels/attention/cpu/isa/tile_gemm.h"
#else
#include "kernels/attention/cpu/isa/pack.h"
#endif
#include "kernels/attention/cpu/plan.h"

namespace uvit::kernels::UVIT_ISA {

constexpr float kInfinity = __builtin_inff();

/// Hands out 64-byte aligned pieces of a buffer; with a null buffer it counts.
struct Arena {
  float* base;
  std::size_t used = 0;
  float* take(std::int64_t floats) {
    float* piece = base ? base + used : nullptr;
    used += static_cast<std::size_t>(round_up(floats, 16));
    return piece;
  }
};

constexpr std::int64_t min(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
constexpr std::int64_t max(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

/// Keys visible to query i.
UVIT_INLINE std::int64_t visible_keys(const AttentionParams& p, std::int64_t i) { return p.causal ? max(0, min(p.Lk, i + p.Lk - p.L + 1)) : p.Lk; }

/// One item: queries [begin, end) of head h of image b.
struct Piece {
  std::int64_t b, h, begin, end;
  Piece(const AttentionParams& p, const Plan& plan, std::int64_t item) {
    const std::int64_t head = item / plan.splits, split = item % plan.splits;
    b = head / p.H;
    h = head % p.H;
    begin = min(p.L, split * plan.split_rows);
    end = min(p.L, begin + plan.split_rows);
  }
};

UVIT_INLINE float* stats_row(const AttentionParams& p, int which, std::int64_t b, std::int64_t h, std::int64_t i) {
  return p.stats + ((which * p.B + b) * p.H + h) * p.L + i;
}

/// kinds.h has the same as a function with linkage, whose code the linker would take from any instruction set.
static bool two_normalisers(Kind kind) { return kind == Kind::sda || kind == Kind::sda_weighted || kind == Kind::dipole || kind == Kind::diff; }

#ifdef UVIT_TILES
/// Rows that a product may write at a time: buffers of results hold a multiple of them.
constexpr std::int64_t kRowsWritten = kTileSide;
/// What a block of queries is a multiple of. Weights of its rows are summed over pairs of them, in whole tiles.
constexpr std::int64_t rows_multiple(Dtype dtype) { return dtype == Dtype::bf16 ? 2 * kTileSide : kRows[kBlockVecs]; }
#else
constexpr std::int64_t kRowsWritten = 1;
constexpr std::int64_t rows_multiple(Dtype) { return kRows[kBlockVecs]; }
#endif

/// Pieces of a head's queries: a few heads shall still make some dozens of items, a piece is at least `rows` queries.
static std::int64_t split_queries(const AttentionParams& p, std::int64_t rows) {
  constexpr std::int64_t kItems = 32;
  const std::int64_t heads = max(1, p.B * p.H);
  return max(1, min((kItems + heads - 1) / heads, p.L / rows));
}

/// Cuts the queries into `splits` pieces of blocks of at most `max_rows`, and keys into tiles of at most `max_tile`.
static Plan make_plan(const AttentionParams& p, std::int64_t splits, std::int64_t max_rows, std::int64_t whole_row, std::int64_t max_tile) {
  const std::int64_t heads = p.B * p.H, multiple = rows_multiple(p.dtype);
  Plan plan;
  plan.splits = splits;
  plan.split_rows = round_up((p.L + plan.splits - 1) / plan.splits, multiple);
  plan.items = heads * plan.splits;
  max_rows = round_up(max_rows, multiple);
  const std::int64_t blocks = (plan.split_rows + max_rows - 1) / max_rows;
  plan.row_block = max(multiple, min(round_up(p.L, multiple), round_up((plan.split_rows + blocks - 1) / max(1, blocks), multiple)));
  const std::int64_t tiles = p.Lk <= whole_row ? 1 : (p.Lk + max_tile - 1) / max_tile;
  plan.key_tile = round_up((p.Lk + tiles - 1) / tiles, kBlockColumns);
  return plan;
}

/// Fetches the next item's operands into the second-level cache while this one computes: short heads of a packed projection are rows far apart, which
/// no hardware prefetcher follows. One row of each operand is fetched per row computed.
template <Dtype kType>
class Prefetcher {
 public:
  Prefetcher(const AttentionParams& p, const Plan& plan, std::int64_t item) {
    constexpr std::int64_t kMaxKeys = 512;  // longer heads would push this item's own operands out
    if (plan.splits > 1 || item + 1 >= plan.items || max(p.L, p.Lk) > kMaxKeys) return;
    b_ = (item + 1) / p.H;
    h_ = (item + 1) % p.H;
  }
  void add(const View& view, std::int64_t rows, std::int64_t width) {
    if (b_ >= 0) operands_[count_++] = {matrix<kType>(view, b_, h_, width), rows};
  }
  UVIT_WEIGHT_FN void fetch(std::int64_t row) const {
    for (int n = 0; n < count_; ++n) {
      if (row >= operands_[n].rows) continue;
      const char* line = operands_[n].m.row(row);
      const std::int64_t bytes = operands_[n].m.width * (kType == Dtype::f32 ? 4 : 2);
      for (std::int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(line + at, 0, 2);
    }
  }

 private:
  struct Operand {
    Matrix m;
    std::int64_t rows;
  };
  Operand operands_[6];
  int count_ = 0;
  std::int64_t b_ = -1, h_ = 0;
};

/// Asks for rows that are about to be written.
template <Dtype kType>
static void prefetch_rows_to_write(const MutableMatrix& m, std::int64_t begin, std::int64_t rows) {
  for (std::int64_t i = begin; i < begin + rows; ++i)
    for (std::int64_t at = 0; at < m.width * (kType == Dtype::f32 ? 4 : 2); at += 64) __builtin_prefetch(m.row(i) + at, 1, 2);
}

/// The mean of the values a row sees, for rows in ascending order: sums are carried on in double.
template <Dtype kType>
struct RunningMean {
  Matrix v;
  double* sums;
  std::int64_t keys = 0;
  /// @param storage  2 floats a column
  RunningMean(const Matrix& values, float* storage) : v(values), sums(reinterpret_cast<double*>(storage)) {
    for (std::int64_t d = 0; d < v.width; ++d) sums[d] = 0;
  }
  /// mean [v.width] of the first n values.
  void of(std::int64_t n, float* mean) {
    for (; keys < n; ++keys)
      for (std::int64_t d = 0; d < v.width; d += 8)
        for (std::int64_t e = 0; e < 8; ++e) sums[d + e] += value(v.row(keys), d + e);
    for (std::int64_t d = 0; d < v.width; ++d) mean[d] = n ? static_cast<float>(sums[d] / static_cast<double>(n)) : 0;
  }
  static float value(const void* row, std::int64_t at) {
    if constexpr (kType == Dtype::f32) return static_cast<const float*>(row)[at];
    const std::uint32_t bits = static_cast<std::uint32_t>(static_cast<const LooseHalf*>(row)[at]) << 16;
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
  }
};

}  // namespace uvit::kernels::UVIT_ISA
