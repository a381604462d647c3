#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>

namespace uvit {

/// A way to bring images to a feature network's size. It changes scores, so it is part of every recipe.
struct ResizeRow {
  std::string name;
  std::string description;
  /// @param x float32 [N, C, H, W] of grey levels 0 .. 255 @return float32 [N, C, height, width]
  at::Tensor (*resize)(const at::Tensor& x, std::int64_t height, std::int64_t width);
  /// Inception's input is x / inception_scale - 1: the program that a resize comes from has its own.
  double inception_scale;
};

std::span<const ResizeRow> resize_table();
/// Throws Error with the nearest name where there is no such row.
const ResizeRow& find_resize(const std::string& name);

}  // namespace uvit
