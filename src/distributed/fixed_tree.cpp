#include <torch/torch.h>

#include "distributed/fixed_tree.h"

#include <bit>

namespace uvit {

FixedTree::FixedTree(std::int64_t values) : run_(values) {
  TORCH_CHECK(values > 0, "FixedTree: ", values, " values");
  while (run_ % 2 == 0) run_ /= 2;
}

void FixedTree::add(at::Tensor value) {
  if (added_ > 0) {
    sums_.back().second.add_(value);
  } else {
    sums_.emplace_back(0, std::move(value));
  }
  added_ = (added_ + 1) % run_;
  while (added_ == 0 && sums_.size() > 1 && sums_[sums_.size() - 2].first == sums_.back().first) {
    auto [level, right] = std::move(sums_.back());
    sums_.pop_back();
    sums_.back().second.add_(right);
    sums_.back().first = level + 1;
  }
}

at::Tensor FixedTree::take() {
  TORCH_CHECK(sums_.size() == 1 && added_ == 0, "FixedTree: not as many values as it was made for");
  at::Tensor sum = std::move(sums_.front().second);
  sums_.clear();
  return sum;
}

FixedTreeSum::FixedTreeSum(ProcessGroup& processes, std::vector<std::pair<std::string, at::Tensor>> parameters, std::int64_t micro_batches)
    : GradientSum(processes), parameters_(std::move(parameters)), tree_(micro_batches) {
  TORCH_CHECK(std::has_single_bit(static_cast<unsigned>(processes.size())), "the fixed tree of ", processes.size(), " processes: not a power of two");
}

void FixedTreeSum::backward(const at::Tensor& loss, bool last) {
  loss.backward();
  const torch::NoGradGuard no_grad;
  std::vector<at::Tensor> parts;
  for (const auto& [name, parameter] : parameters_) {
    if (!parameter.grad().defined()) continue;
    parts.push_back(parameter.grad().reshape(-1));
    if (!last) parameter.mutable_grad().reset();
  }
  tree_.add(at::cat(parts));
  if (!last) return;
  at::Tensor flat = tree_.take();
  sum_along_ranks(processes_, flat);
  std::int64_t first = 0;
  for (const auto& [name, parameter] : parameters_) {
    if (!parameter.grad().defined()) continue;
    parameter.mutable_grad() = flat.narrow(0, first, parameter.numel()).view(parameter.sizes()).clone();
    first += parameter.numel();
  }
}

namespace {

/// Sends one part of `flat` and receives the other from the same process, the lower rank first.
void exchange(ProcessGroup& processes, const at::Tensor& outgoing, at::Tensor& incoming, int partner) {
  if (processes.rank() < partner) {
    processes.send(outgoing, partner);
    processes.receive(incoming, partner);
  } else {
    processes.receive(incoming, partner);
    processes.send(outgoing, partner);
  }
}

}  // namespace

/// Recursive halving (each partner sums one half of what both hold), then doubling (the halves go back): every element is summed in one place, its left
/// operand that of the lower rank, and 2 (W - 1) / W of the tensor goes over the wire.
void sum_along_ranks(ProcessGroup& processes, at::Tensor& flat) {
  struct Part {
    std::int64_t first, count;
  };
  std::vector<Part> whole;  // before each halving
  Part mine{0, flat.numel()};
  for (int distance = 1; distance < processes.size(); distance *= 2) {
    const int partner = processes.rank() ^ distance;
    const bool lower = processes.rank() < partner;
    whole.push_back(mine);
    const Part left{mine.first, mine.count / 2}, right{mine.first + mine.count / 2, mine.count - mine.count / 2};
    const Part other = lower ? right : left;
    mine = lower ? left : right;
    at::Tensor theirs = at::empty({mine.count}, flat.options());
    exchange(processes, flat.narrow(0, other.first, other.count).contiguous(), theirs, partner);
    at::Tensor own = flat.narrow(0, mine.first, mine.count);
    own.add_(theirs);  // a + b = b + a in every bit: the order of the two operands is free
  }
  for (int distance = processes.size() / 2; distance >= 1; distance /= 2) {
    const Part both = whole.back();
    whole.pop_back();
    const Part other = mine.first == both.first ? Part{mine.first + mine.count, both.count - mine.count} : Part{both.first, both.count - mine.count};
    at::Tensor theirs = at::empty({other.count}, flat.options());
    exchange(processes, flat.narrow(0, mine.first, mine.count).contiguous(), theirs, processes.rank() ^ distance);
    flat.narrow(0, other.first, other.count).copy_(theirs);
    mine = both;
  }
}

}  // namespace uvit
