#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "io/host_tensor.h"

namespace uvit {

/// Names of the tensor files that state.json of a step folder lists. Throws Error as load_state does.
std::vector<std::string> checkpoint_files(const std::filesystem::path& step_folder);

/// One tensor file of a step folder, each tensor checked against the CRC-32 in state.json. Throws Error naming the file and the damaged tensor.
TensorFile read_verified(const std::filesystem::path& step_folder, const std::string& file);

}  // namespace uvit
