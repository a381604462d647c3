#include "samplers/micro_batch.h"

namespace uvit {

std::vector<MicroBatch> plan_micro_batches(const std::vector<std::uint64_t>& seeds, std::int64_t batch_size) {
  const auto size = static_cast<std::size_t>(batch_size);
  std::vector<std::size_t> taken(size, 0);  // batches in which a row is taken
  std::vector<MicroBatch> batches;
  for (std::size_t index = 0; index < seeds.size(); ++index) {
    const std::size_t row = seeds[index] % size, batch = taken[row]++;
    if (batch == batches.size()) batches.push_back({std::vector<std::int64_t>(size, MicroBatch::kPadding)});
    batches[batch].rows[row] = static_cast<std::int64_t>(index);
  }
  return batches;
}

}  // namespace uvit
