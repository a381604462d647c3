#pragma once
#include <ATen/autocast_mode.h>

#include <string>

#include "core/error.h"

namespace uvit {

/// Autocast for the life of the object: "fp32" changes nothing, "bf16" and "fp16" let linears, convolutions and matrix products run in that type.
class AutocastGuard {
 public:
  AutocastGuard(const std::string& precision, at::DeviceType device)
      : device_(device), was_enabled_(at::autocast::is_autocast_enabled(device)), was_dtype_(at::autocast::get_autocast_dtype(device)) {
    at::autocast::increment_nesting();
    if (precision != "fp32") at::autocast::set_autocast_dtype(device, precision == "bf16" ? at::kBFloat16 : at::kHalf);
    at::autocast::set_autocast_enabled(device, precision != "fp32");
  }
  ~AutocastGuard() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();  // the cached casts of the weights are stale after an optimizer step
    at::autocast::set_autocast_enabled(device_, was_enabled_);
    at::autocast::set_autocast_dtype(device_, was_dtype_);
  }
  AutocastGuard(const AutocastGuard&) = delete;
  AutocastGuard& operator=(const AutocastGuard&) = delete;

 private:
  at::DeviceType device_;
  bool was_enabled_;
  at::ScalarType was_dtype_;
};

}  // namespace uvit
