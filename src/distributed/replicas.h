#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "distributed/process_group.h"

namespace uvit {

/// Throws Error, naming step, ranks and the first parameter that differs, unless every process holds the same bits. Only gradients are exchanged, so
/// nothing else would find out that one process computed another update.
void check_equal_replicas(ProcessGroup& processes, const std::vector<std::pair<std::string, at::Tensor>>& parameters, std::int64_t step);

/// Rank 0's names and tensors, in every process; what the others pass is not looked at. On the CPU.
std::vector<std::pair<std::string, at::Tensor>> broadcast_named(ProcessGroup& processes, std::vector<std::pair<std::string, at::Tensor>> tensors);

/// Every process's list after each other, in the order of ranks, in rank 0; what the others get is empty. On the CPU.
std::vector<std::pair<std::string, at::Tensor>> gather_named(ProcessGroup& processes, const std::vector<std::pair<std::string, at::Tensor>>& tensors);

/// Contiguous shares of tensors of these sizes, as even as whole tensors allow: share r is [result[r], result[r + 1]).
std::vector<std::size_t> even_shares(const std::vector<std::int64_t>& sizes, int shares);

}  // namespace uvit
