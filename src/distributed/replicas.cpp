#include <torch/torch.h>

#include "distributed/replicas.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <sstream>

#include "core/hash.h"

namespace uvit {
namespace {

using Named = std::vector<std::pair<std::string, at::Tensor>>;

std::int64_t checksum(const at::Tensor& tensor) {
  const at::Tensor values = tensor.detach().to(at::kCPU).contiguous();
  return crc32({static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
}

/// One line a tensor: type, number of dimensions, sizes, name.
std::string header_of(const Named& tensors) {
  std::string header;
  for (const auto& [name, tensor] : tensors)
    header += fmt::format("{} {} {} {}\n", static_cast<int>(tensor.scalar_type()), tensor.dim(), fmt::join(tensor.sizes().vec(), " "), name);
  return header;
}

Named empty_from(const std::string& header) {
  Named tensors;
  std::istringstream lines(header);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    int type = 0;
    std::size_t dims = 0;
    words >> type >> dims;
    std::vector<std::int64_t> sizes(dims);
    for (std::int64_t& size : sizes) words >> size;
    std::string name;
    words >> name;
    tensors.emplace_back(name, at::empty(sizes, at::TensorOptions(static_cast<at::ScalarType>(type))));
  }
  return tensors;
}

std::vector<at::Tensor> values_of(const Named& tensors) {
  std::vector<at::Tensor> values;
  for (const auto& [name, tensor] : tensors) values.push_back(tensor);
  return values;
}

}  // namespace

void check_equal_replicas(ProcessGroup& processes, const Named& parameters, std::int64_t step) {
  if (processes.alone()) return;
  at::Tensor sums = at::empty({static_cast<std::int64_t>(parameters.size())}, at::kLong);
  for (std::size_t i = 0; i < parameters.size(); ++i) sums[static_cast<std::int64_t>(i)] = checksum(parameters[i].second);
  const std::vector<at::Tensor> all = processes.all_gather(sums);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    std::map<std::int64_t, std::vector<int>> groups;
    for (std::size_t r = 0; r < all.size(); ++r) groups[all[r][static_cast<std::int64_t>(i)].item<std::int64_t>()].push_back(static_cast<int>(r));
    if (groups.size() == 1) continue;
    std::vector<std::string> sides;
    for (const auto& [sum, ranks] : groups) sides.push_back(fmt::format("rank {}", fmt::join(ranks, ", ")));
    throw Error(fmt::format("the processes hold different parameters after step {}: {} differ, first in '{}'; go on from the last checkpoint with "
                            "--resume, and if it comes again look at the memory and clocks of these machines",
                            step, fmt::join(sides, " and "), parameters[i].first));
  }
}

Named broadcast_named(ProcessGroup& processes, Named tensors) {
  if (processes.alone()) return tensors;
  for (auto& [name, tensor] : tensors) tensor = tensor.detach().to(at::kCPU).contiguous();
  const std::string header = processes.broadcast(header_of(tensors));
  if (!processes.is_first()) tensors = empty_from(header);
  processes.broadcast(values_of(tensors));
  return tensors;
}

Named gather_named(ProcessGroup& processes, const Named& tensors) {
  if (processes.alone()) return tensors;
  const std::vector<std::string> headers = processes.all_gather(header_of(tensors));
  if (!processes.is_first()) {
    for (const auto& [name, tensor] : tensors) processes.send(tensor.detach().to(at::kCPU).contiguous(), 0);
    return {};
  }
  Named all = tensors;
  for (int r = 1; r < processes.size(); ++r)
    for (auto& [name, tensor] : empty_from(headers[static_cast<std::size_t>(r)])) {
      processes.receive(tensor, r);
      all.emplace_back(name, tensor);
    }
  return all;
}

std::vector<std::size_t> even_shares(const std::vector<std::int64_t>& sizes, int shares) {
  std::int64_t total = 0, before = 0;
  for (const std::int64_t size : sizes) total += size;
  std::vector<std::size_t> starts{0};
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    // A tensor belongs to the share in which its middle lies.
    const std::int64_t middle = 2 * before + sizes[i];
    while (static_cast<int>(starts.size()) < shares && middle * shares >= 2 * total * static_cast<std::int64_t>(starts.size())) starts.push_back(i);
    before += sizes[i];
  }
  while (static_cast<int>(starts.size()) <= shares) starts.push_back(sizes.size());
  return starts;
}

}  // namespace uvit
