#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace uvit {

struct CudaDevice {
  int index = 0;
  std::string name;
  int architecture = 0;   ///< 90 for sm_90
  std::size_t bytes = 0;  ///< memory
};

/// The GPUs that the driver shows, asked for once; empty where there is no driver.
const std::vector<CudaDevice>& cuda_devices();

/// Why the first GPU cannot be used, in a few words; "" where it can.
std::string cuda_obstacle();

}  // namespace uvit
