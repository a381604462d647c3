#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <string>
#include <vector>

#include "io/host_tensor.h"

namespace uvit {

/// A 2-d convolution with its batch norm folded in: relu(conv(x; w g) + beta - mean g), g = gamma / sqrt(var + eps), folded in float64.
/// On the CPU the weights are packed once into oneDNN's blocked layout and the ReLU is part of the call; elsewhere it is conv2d and relu.
class FoldedConv {
 public:
  /// Reads NAME.conv.weight and NAME.bn.{weight, bias, running_mean, running_var} of `file`. @param epsilon of the batch norm
  /// Throws Error naming what is missing or of a wrong shape.
  FoldedConv(const TensorFile& file, const std::string& name, std::array<std::int64_t, 2> stride, std::array<std::int64_t, 2> padding, double epsilon);
  /// Brings the weights to this device and dtype (float32 or bfloat16).
  void to(at::Device device, at::ScalarType dtype);
  /// @param x [N, C, H, W], best in channels-last order @param relu whether the ReLU follows. The first call packs for x's shape; not for two threads.
  at::Tensor operator()(const at::Tensor& x, bool relu = true);

 private:
  at::Tensor weight_, bias_, packed_;
  std::vector<std::int64_t> stride_, padding_;
};

}  // namespace uvit
