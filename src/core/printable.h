#pragma once
#include <string>
#include <string_view>

namespace uvit {

/// Text from a file as a message may show it: control characters become \xNN, so that a damaged file neither breaks the line nor steers the terminal.
std::string printable(std::string_view text);

}  // namespace uvit
