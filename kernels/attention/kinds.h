#pragma once
#include <cstdint>

namespace uvit::kernels {

/// The weights of o = w v; s = scale * q k^T, sums over the visible keys. Formulas, derivatives and sources: kernels/README.md.
enum class Kind : std::int32_t {
  softmax,       ///< e^s / sum e^s
  cog,           ///< sign(s) e^|s| / sum e^|s|, sign(0) = 0
  sda,           ///< softmax(s) - softmax(-s)
  sda_weighted,  ///< w_plus softmax(s) - w_minus softmax(-s)
  dipole,        ///< o = w_plus softmax(s) v + w_minus softmax(-s) v2
  diff,          ///< softmax(s) - w_minus softmax(s2), s2 = scale * q2 k2^T
  centered,      ///< softmax(s) - 1/n, n = number of visible keys of the row
  softpick,      ///< relu(e^s - 1) / (sum |e^s - 1| + 1e-8)
  softmax1,      ///< e^s / (1 + sum e^s)
  sigmoid,       ///< sigmoid(s - log Lk)
};
inline constexpr int kKindCount = 10;

constexpr const char* kind_name(Kind kind) {
  constexpr const char* names[kKindCount] = {"softmax", "cog",      "sda",      "sda_weighted", "dipole",
                                             "diff",    "centered", "softpick", "softmax1",     "sigmoid"};
  return names[static_cast<int>(kind)];
}

constexpr bool has_two_normalisers(Kind kind) {
  return kind == Kind::sda || kind == Kind::sda_weighted || kind == Kind::dipole || kind == Kind::diff;
}
constexpr bool has_second_value(Kind kind) { return kind == Kind::dipole; }
constexpr bool has_second_scores(Kind kind) { return kind == Kind::diff; }
constexpr bool has_w_plus(Kind kind) { return kind == Kind::sda_weighted || kind == Kind::dipole; }
constexpr bool has_w_minus(Kind kind) { return has_w_plus(kind) || kind == Kind::diff; }

/// Floats that forward keeps per row for backward, besides the output: see AttentionParams::stats.
constexpr int stats_per_row(Kind kind) { return has_two_normalisers(kind) ? 4 : 2; }

}  // namespace uvit::kernels
