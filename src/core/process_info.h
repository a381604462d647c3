#pragma once
#include <cstdint>
#include <string>

namespace uvit {

/// The machine's name, "localhost" where it has none.
std::string host_name();

/// Main memory that this process holds, in bytes; 0 where the system does not say.
std::int64_t resident_bytes();

/// "812 MiB" or "3.4 GiB"
std::string format_bytes(std::int64_t bytes);

}  // namespace uvit
