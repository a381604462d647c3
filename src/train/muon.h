#pragma once
#include <cstdint>
#include <vector>

#include "train/adamw.h"

namespace uvit {

/// The nearest orthogonal matrix, roughly: five Newton-Schulz steps x <- a x + (b (x x^T) + c (x x^T)^2) x from m / |m|_F, with
/// a, b, c = 3.4445, -4.7750, 2.0315, which bring every singular value that is not tiny to 0.7 ... 1.2. @param m [rows, columns] float32 or float64; @return its shape and dtype
at::Tensor orthogonalise(const at::Tensor& m);

/// How many maps a block's weight holds, one below the other: 3 in attn.qkv, 2 in mlp.w12, 6 in adaLN_modulation, else 1.
std::int64_t stacked_maps(const std::string& name);

/// Muon (K. Jordan et al., 2024, kellerjordan.github.io/posts/muon) for the weight matrices of the blocks: attention, MLP, skip_linear, adaLN. With
/// lr = muon_lr on the schedule of optimizer.lr:
///   m += (1 - momentum) (g - m)                  u = g + momentum (m - g), Nesterov's
///   p *= 1 - lr weight_decay                     p -= lr sqrt(max(1, rows / columns)) orthogonalise(u)
/// A weight that stacks several maps (stacked_maps) is so many matrices: the updates of q, k and v are each orthogonal. Everything else (embeddings,
/// patches, prediction, norms, biases, attention scalars) is AdamW's. On a GPU it takes the plain path, not the fused update.
class Muon : public Optimizer {
 public:
  /// Throws Error for optimizer.lr = 0, from which its schedule cannot be read.
  Muon(const OptimizerConfig& config, NamedTensors parameters);
  void step(double lr) override;
  NamedTensors state() const override;  ///< AdamW's, and "muon.<name>" for m
  void load(const NamedTensors& state) override;

  const NamedTensors& matrices() const { return matrices_; }

 private:
  OptimizerConfig config_;
  NamedTensors matrices_;
  std::vector<at::Tensor> momentum_;  // in the order of the matrices
  AdamW rest_;
};

}  // namespace uvit
