#pragma once
#include <cstdint>
#include <vector>

namespace uvit {

/// One network batch of fixed size: rows[r] is the index of the request that sits in row r, or kPadding.
struct MicroBatch {
  static constexpr std::int64_t kPadding = -1;
  std::vector<std::int64_t> rows;
};

/// Places every image in row seed % batch_size of some micro-batch. A matrix product may round a row by its place (edges of blocks, tails of vectors,
/// the threads' shares), so the place is a function of the seed: then the image is bit-equal whatever else is asked for, on any CPU. Consecutive
/// seeds, in any order, fill every batch but the last; images whose seeds share a row wait for later batches.
std::vector<MicroBatch> plan_micro_batches(const std::vector<std::uint64_t>& seeds, std::int64_t batch_size);

}  // namespace uvit
