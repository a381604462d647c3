#include "core/printable.h"

#include <catch2/catch.hpp>

using namespace std::string_literals;

TEST_CASE("control characters are shown as bytes, everything else as it is") {
  CHECK(uvit::printable("a\nb\x1b[2J\x7f\0"s) == "a\\x0ab\\x1b[2J\\x7f\\x00");
  CHECK(uvit::printable("Größe 3 '<f8'") == "Größe 3 '<f8'");
  CHECK(uvit::printable("").empty());
}
