#include "io/json_lines.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "io/json_field.h"
#include "support/scratch.h"

using namespace uvit;
using Json = nlohmann::ordered_json;

TEST_CASE("every line of a file is given, also one that is no JSON") {
  const test::ScratchFolder folder;
  const auto lines_of = [&] {
    std::vector<std::string> lines;
    for_each_json_line(folder / "a.jsonl", [&](const Json& json) { lines.push_back(json.is_discarded() ? "none" : json.dump()); });
    return lines;
  };
  CHECK(lines_of().empty());
  write_file(folder / "a.jsonl", "{\"b\":1,\"a\":2}\n\n[3]\n{\"cut\":");
  CHECK(lines_of() == std::vector<std::string>{R"({"b":1,"a":2})", "none", "[3]", "none"});
}

TEST_CASE("lines that are unwanted or no objects are left out, the others stay letter by letter") {
  const test::ScratchFolder folder;
  const auto keep = [](const Json& line) { return value_or(line, "step", 0) <= 2; };
  keep_json_lines(folder / "a.jsonl", keep);
  CHECK(folder.entries() == 0);
  write_file(folder / "a.jsonl", "{\"step\": 1, \"x\":1.50}\n{\"step\":3}\nnothing\n[1]\n{}\n{\"step\":2");
  keep_json_lines(folder / "a.jsonl", keep);
  CHECK(read_file(folder / "a.jsonl") == "{\"step\": 1, \"x\":1.50}\n{}\n");
  const auto written = std::filesystem::last_write_time(folder / "a.jsonl") - std::chrono::hours(1);
  std::filesystem::last_write_time(folder / "a.jsonl", written);
  keep_json_lines(folder / "a.jsonl", keep);
  CHECK(std::filesystem::last_write_time(folder / "a.jsonl") == written);
}
