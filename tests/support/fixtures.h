#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

namespace uvit::test {

/// The folder of fixtures: $UVIT_FIXTURES, else tests/fixtures. Tests read the names of their cases from the .json files there.
inline std::filesystem::path fixtures() {
  const char* named = std::getenv("UVIT_FIXTURES");
  return named && *named ? std::filesystem::path(named) : std::filesystem::path(UVIT_SOURCE_DIR) / "tests/fixtures";
}

inline nlohmann::json fixture_json(const std::string& file) {
  std::ifstream stream(fixtures() / file);
  if (!stream) throw std::runtime_error("no fixture " + (fixtures() / file).string());
  return nlohmann::json::parse(stream);
}

}  // namespace uvit::test
