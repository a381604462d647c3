#include "metrics/compare.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/scratch.h"

using namespace uvit;
using namespace uvit::test;

namespace {

Score score(double value, std::optional<double> half = std::nullopt, const std::string& steps = "50") {
  Score result{"FID@10", value, std::nullopt, {{"num_steps", steps}, {"weights_hash", std::to_string(value)}}};
  if (half) result.interval = Interval{value - *half, value + *half};
  return result;
}

ScoredRun scored(const std::string& group, std::uint64_t seed, const Score& one) { return {group, seed, {{one.metric, one}}}; }

}  // namespace

TEST_CASE("runs are compared seed by seed, with Student's interval of the differences") {
  const Comparison found = compare_runs({scored("a", 1, score(10)), scored("a", 2, score(20)), scored("a", 3, score(30)), scored("b", 3, score(28)),
                                         scored("b", 1, score(9)), scored("b", 2, score(18)), scored("b", 4, score(1000))});
  REQUIRE(found.rows.size() == 2);
  CHECK(found.rows[0].group == "a");
  CHECK(found.rows[0].mean == Approx(20));
  CHECK(found.rows[0].interval->low == Approx(20 - 4.30265273 * 10 / std::sqrt(3)));
  CHECK(!found.rows[0].difference);
  CHECK(found.rows[1].seeds == 4);
  CHECK(found.rows[1].pairs == 3);
  CHECK(*found.rows[1].difference == Approx(-5.0 / 3));
  const double half = 4.30265273 * std::sqrt(1.0 / 3) / std::sqrt(3);  // of -1, -2, -2
  CHECK(found.rows[1].difference_interval->low == Approx(-5.0 / 3 - half));
  CHECK(found.rows[1].difference_interval->high == Approx(-5.0 / 3 + half));
  CHECK_THAT(format_comparison(found, "text"), Catch::Contains("-1.667 [-3.101, -0.2324]") && Catch::Contains("yes"));
}

TEST_CASE("one seed has the interval of its images, and is said to") {
  const Comparison found = compare_runs({scored("a", 1, score(10, 3)), scored("b", 1, score(16, 4))});
  CHECK(*found.rows[1].difference == 6);
  CHECK(found.rows[1].difference_interval->low == Approx(1));
  CHECK(found.rows[1].difference_interval->high == Approx(11));
  REQUIRE(found.notes.size() == 1);
  CHECK_THAT(found.notes[0], Catch::Contains("one seed"));
  CHECK(!compare_runs({scored("a", 1, score(10)), scored("b", 1, score(16))}).rows[1].difference_interval);
}

TEST_CASE("scores of other recipes are not differenced, and what differs is said") {
  const Comparison found = compare_runs({scored("a", 1, score(10, 3)), scored("b", 1, score(16, 4, "20"))});
  CHECK(!found.rows[1].difference);
  REQUIRE(found.notes.size() == 1);
  CHECK_THAT(found.notes[0], Catch::Contains("num_steps: 50 against 20"));
  Score other = score(5);
  other.metric = "KID@10";
  const Comparison missing = compare_runs({scored("a", 1, score(10)), scored("b", 1, other)});
  CHECK(missing.rows.size() == 2);
  CHECK(missing.notes == std::vector<std::string>{"b has no FID@10", "a has no KID@10"});
  CHECK_THAT(compare_runs({scored("a", 1, score(10, 3)), scored("b", 2, score(16, 4))}).notes.at(0), Catch::Contains("no common seed"));
}

TEST_CASE("a comparison as Markdown, JSON and CSV") {
  const Comparison found = compare_runs({scored("run \"a\"", 1, score(10, 3)), scored("b", 1, score(16, 4))});
  std::istringstream markdown(format_comparison(found, "markdown"));
  std::string header, rule, row;
  std::getline(markdown, header);
  std::getline(markdown, rule);
  std::getline(markdown, row);
  CHECK(std::count(header.begin(), header.end(), '|') == 7);
  CHECK(std::count(rule.begin(), rule.end(), '|') == 7);
  CHECK(header.size() == rule.size());
  CHECK_THAT(row, Catch::StartsWith("| FID@10 | run \"a\" "));
  const auto json = nlohmann::json::parse(format_comparison(found, "json"));
  CHECK(json["scores"][1]["difference"] == 6);
  CHECK(json["scores"][0]["difference"].is_null());
  CHECK(json["scores"][0]["interval"] == nlohmann::json::array({7, 13}));
  CHECK(json["notes"].size() == 1);
  std::istringstream csv(format_comparison(found, "csv"));
  for (std::string line; std::getline(csv, line);) CHECK(std::count(line.begin(), line.end(), ',') == 9);
  CHECK_THAT(format_comparison(found, "csv"), Catch::Contains("\"FID@10\",\"run \"\"a\"\"\",1,10,7,13,,,,0"));
  CHECK_THAT(error_of([&] { format_comparison(found, "jsn"); }), Catch::Contains("did you mean 'json'"));
}

TEST_CASE("the newest score of each metric is read back, its interval too, and damage is named by line") {
  const ScratchFolder folder;
  const auto file = folder / "scores.jsonl";
  CHECK(read_scores(file).empty());
  append_score(file.string(), score(1));
  append_score(file.string(), score(2, 0.5));
  const auto scores = read_scores(file);
  REQUIRE(scores.size() == 1);
  CHECK(scores.at("FID@10").value == 2);
  CHECK(scores.at("FID@10").interval->low == 1.5);
  CHECK(scores.at("FID@10").recipe.at("num_steps") == "50");
  for (const std::string bad : {"{", "[]", "{\"metric\": 3}", "{\"metric\": \"x\", \"value\": \"y\", \"recipe\": {}}"}) {
    const auto damaged = folder / "damaged.jsonl";
    std::filesystem::copy_file(file, damaged, std::filesystem::copy_options::overwrite_existing);
    std::ofstream(damaged, std::ios::app) << bad << "\n";
    CHECK_THAT(error_of([&] { read_scores(damaged); }), Catch::Contains("damaged.jsonl:3"));
  }
}
