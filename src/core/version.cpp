#include "core/version.h"

#include "uvit_version.h"

namespace uvit {

std::string version() { return UVIT_VERSION; }
std::string git_commit() { return UVIT_GIT_COMMIT; }

}  // namespace uvit
