#pragma once
#include <string>

namespace uvit {

std::string version();     ///< for instance "0.1.0"
std::string git_commit();  ///< short hash of the source that was built, with "-dirty"; "unknown" outside a clone

}  // namespace uvit
