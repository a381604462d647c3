#pragma once
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <string>

#include "checkpoint/tensor_convert.h"
#include "core/error.h"
#include "io/host_tensor.h"

namespace uvit {

/// Runs body(begin, end) over [0, n) on the intra-op threads. For element-wise passes that memory bandwidth limits: the build targets no fused
/// multiply-add, so an element's bits depend neither on where a range is cut nor on the number of threads.
template <class Body>
void for_each_range(std::int64_t n, const Body& body) {
  constexpr std::int64_t kGrain = 1 << 15;  // below this a thread costs more than it saves
  at::parallel_for(0, n, kGrain, body);
}

/// e = rate e + (1 - rate) p over [begin, end), for a contiguous average on the CPU.
template <class T>
struct AveragePass {
  AveragePass(const at::Tensor& average, double rate_) : e(average.data_ptr<T>()), rate(static_cast<T>(rate_)), rest(static_cast<T>(1 - rate_)) {}
  void operator()(const T* p, std::int64_t begin, std::int64_t end) const {
    for (std::int64_t i = begin; i < end; ++i) e[i] = rate * e[i] + rest * p[i];
  }
  T* e;
  T rate, rest;
};

/// Copies the tensor called `name` of `saved` into `target`. Throws Error where it is missing or of another shape.
inline void copy_named(const NamedTensors& saved, const std::string& name, at::Tensor target) {
  for (const auto& [saved_name, tensor] : saved) {
    if (saved_name != name) continue;
    if (tensor.sizes() != target.sizes())
      throw Error(fmt::format("'{}' has shape {} in the checkpoint and {} here", name, format_shape(tensor.sizes().vec()),
                              format_shape(target.sizes().vec())));
    target.copy_(tensor);
    return;
  }
  throw Error(fmt::format("the checkpoint has no '{}'", name));
}

}  // namespace uvit
