#include "data/bpe_tokenizer.h"

#include <catch2/catch.hpp>

#include "core/atomic_file.h"
#include "data/text_cleaning.h"
#include "io/safetensors.h"
#include "support/fixtures.h"
#include "support/scratch.h"

using namespace uvit;
using namespace uvit::test;

namespace {

const BpeTokenizer& clip() {
  static const BpeTokenizer tokenizer(fixtures() / "bpe_simple_vocab_16e6.txt.gz");
  return tokenizer;
}

std::string cleaned(std::string_view text) {
  std::string utf8;
  clean_text(text).toUTF8String(utf8);
  return utf8;
}

}  // namespace

TEST_CASE("the tokenizer gives the ids of open_clip's tokenizer for texts that are hard to clean, split and join") {
  const nlohmann::json cases = fixture_json("bpe_expected.json").at("cases");
  REQUIRE(cases.size() >= 48);
  for (const nlohmann::json& entry : cases) {
    const std::string text = entry.at("text");
    INFO(text << " cleaned to " << cleaned(text));
    CHECK(clip().encode(text) == entry.at("ids").get<std::vector<std::int64_t>>());
  }
}

TEST_CASE("the tokenizer gives the ids of Hugging Face's tokenizer, with start, end, padding and cut, where that agrees with OpenAI's") {
  const nlohmann::json json = fixture_json("clip_text.json");
  const TensorFile io = read_safetensors(fixtures() / "clip_text_io.safetensors");
  const auto* ids = io.at("ids").as<std::int64_t>();
  std::size_t checked = 0;
  for (std::size_t i = 0; i < json.at("sentences").size(); ++i) {
    if (!json.at("agrees_with_openai_tokenizer")[i].get<bool>()) continue;  // there either is accepted, and ours is OpenAI's
    const std::string text = json.at("sentences")[i];
    INFO(text);
    CHECK(clip().tokenize(text) == std::vector<std::int64_t>(ids + 77 * i, ids + 77 * (i + 1)));
    ++checked;
  }
  CHECK(checked >= 12);
  CHECK(clip().start() == 49406);
  CHECK(clip().end() == 49407);
  CHECK(clip().vocab_size() == 49408);
  CHECK(clip().encode("<|startoftext|>a<|endoftext|>") == std::vector<std::int64_t>{49406, 320, 49407});
}

TEST_CASE("Hugging Face's vocab.json and merges.txt are read, with ids as they say") {
  const ScratchFolder folder;
  write_file(folder / "vocab.json", std::string_view(R"({"a": 5, "b": 6, "a</w>": 7, "b</w>": 8, "ab</w>": 9, "aab</w>": 10, "<|startoftext|>": 1, "<|endoftext|>": 2})"));
  write_file(folder / "merges.txt", std::string_view("#version: 0.2\na b</w>\na ab</w>\n"));
  const BpeTokenizer tokenizer(folder.path());
  CHECK(tokenizer.encode("AB b aab aaab") == std::vector<std::int64_t>{9, 8, 10, 5, 10});
  CHECK(tokenizer.tokenize("ab b", 6) == std::vector<std::int64_t>{1, 9, 8, 2, 2, 2});
  CHECK(tokenizer.tokenize("b b b b b", 4) == std::vector<std::int64_t>{1, 8, 8, 2});
  CHECK(error_of([&] { tokenizer.encode("c"); }).find("no token 'c</w>'") != std::string::npos);
}

TEST_CASE("a vocabulary that is none gets one clear line") {
  const ScratchFolder folder;
  CHECK(error_of([&] { BpeTokenizer(folder / "nothing.gz"); }).find("nothing.gz") != std::string::npos);
  CHECK(error_of([&] { BpeTokenizer(folder.path()); }).find("vocab.json") != std::string::npos);
  write_file(folder / "short.txt", std::string_view("#version\na b\n"));
  CHECK(error_of([&] { BpeTokenizer(folder / "short.txt"); }).find("too few") != std::string::npos);
  const std::string packed = read_file(fixtures() / "bpe_simple_vocab_16e6.txt.gz");
  write_file(folder / "cut.gz", std::string_view(packed).substr(0, packed.size() / 2));
  CHECK(error_of([&] { BpeTokenizer(folder / "cut.gz"); }).find("ends early") != std::string::npos);
  write_file(folder / "vocab.json", std::string_view("[1]"));
  CHECK(error_of([&] { BpeTokenizer(folder.path()); }).find("no JSON object") != std::string::npos);
}
