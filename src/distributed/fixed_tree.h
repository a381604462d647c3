#pragma once
#include "distributed/gradient_sum.h"

namespace uvit {

/// The sum of n = m 2^k values (m odd) along one tree: each m values after each other from left to right, their sums in pairs of neighbours, and so on.
/// 2^j processes that hold a block of n / 2^j consecutive values each (j <= k) compute subtrees of it, so the bits do not hang on their number.
class FixedTree {
 public:
  /// @param values  of this process's subtree
  explicit FixedTree(std::int64_t values);
  /// The next value; the tensor is taken over and may be added to.
  void add(at::Tensor value);
  /// The sum, after the last value; the tree is empty then.
  at::Tensor take();

 private:
  std::int64_t run_;             // m
  std::int64_t added_ = 0;       // values of the current run
  std::vector<std::pair<int, at::Tensor>> sums_;  // level and sum, the highest level first: a binary counter
};

/// Gradients summed along the fixed tree, within a process and then over processes: recursive doubling between rank and rank ^ 1, ^ 2, ^ 4, ...
class FixedTreeSum : public GradientSum {
 public:
  FixedTreeSum(ProcessGroup& processes, std::vector<std::pair<std::string, at::Tensor>> parameters, std::int64_t micro_batches);
  void backward(const at::Tensor& loss, bool last) override;
  bool wants_copies() const override { return true; }

 private:
  std::vector<std::pair<std::string, at::Tensor>> parameters_;
  FixedTree tree_;
};

/// The sum of every process's tensor along the tree of ranks, in each of them, in place. The number of processes is a power of two.
void sum_along_ranks(ProcessGroup& processes, at::Tensor& flat);

}  // namespace uvit
