#include "data/bpe_tokenizer.h"

#include <fmt/format.h>
#include <unicode/uchar.h>

#include <array>
#include <nlohmann/json.hpp>

#include "core/atomic_file.h"
#include "core/error.h"
#include "data/packed_file.h"
#include "data/text_cleaning.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kStart = "<|startoftext|>", kEnd = "<|endoftext|>", kWordEnd = "</w>";
constexpr std::size_t kMerges = 49152 - 256 - 2;  // CLIP's vocabulary uses so many of the file's lines

/// Each byte as one printable character in UTF-8, as GPT-2's vocabularies write bytes: printable Latin-1 stands for itself, the others follow from U+0100.
const std::array<std::string, 256>& byte_symbols() {
  static const std::array<std::string, 256> symbols = [] {
    std::array<std::string, 256> table;
    char32_t next = 0x100;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
      icu::UnicodeString(static_cast<UChar32>(printable ? byte : next++)).toUTF8String(table[byte]);
    }
    return table;
  }();
  return symbols;
}

/// The order in which the vocabulary lists the bytes: the printable ones first.
std::vector<std::string> byte_tokens() {
  std::vector<std::string> printable, others;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const bool own = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    (own ? printable : others).push_back(byte_symbols()[byte]);
  }
  printable.insert(printable.end(), others.begin(), others.end());
  return printable;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin <= text.size();) {
    std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    lines.push_back(text.substr(begin, end - begin - (end > begin && text[end - 1] == '\r' ? 1 : 0)));
    begin = end + 1;
  }
  return lines;
}

enum class Kind { letter, number, space, other };

Kind kind_of(UChar32 c) {
  const auto mask = U_GET_GC_MASK(c);
  if (mask & U_GC_L_MASK) return Kind::letter;
  if (mask & U_GC_N_MASK) return Kind::number;
  return is_space(static_cast<char32_t>(c)) ? Kind::space : Kind::other;
}

/// Length in UTF-16 units of a special token or a clitic ('s 't 're 've 'm 'll 'd) that begins at `at`; 0 where none does.
std::int32_t fixed_piece(const icu::UnicodeString& text, std::int32_t at) {
  static const std::array<icu::UnicodeString, 9> pieces = {u"<|startoftext|>", u"<|endoftext|>", u"'s", u"'t", u"'re", u"'ve", u"'m", u"'ll", u"'d"};
  for (const icu::UnicodeString& piece : pieces)
    if (text.compare(at, piece.length(), piece) == 0) return piece.length();
  return 0;
}

/// The words of cleaned text: special tokens, clitics, runs of letters, single numbers, runs of anything else that is no space.
std::vector<std::string> split_words(const icu::UnicodeString& text) {
  std::vector<std::string> words;
  for (std::int32_t at = 0; at < text.length();) {
    std::int32_t end = at + fixed_piece(text, at);
    const Kind kind = kind_of(text.char32At(at));
    if (end == at) {
      end = text.moveIndex32(at, 1);
      const bool runs = kind == Kind::letter || kind == Kind::other;
      while (runs && end < text.length() && kind_of(text.char32At(end)) == kind) end = text.moveIndex32(end, 1);
    }
    if (kind != Kind::space) text.tempSubStringBetween(at, end).toUTF8String(words.emplace_back());
    at = end;
  }
  return words;
}

}  // namespace

BpeTokenizer::BpeTokenizer(const fs::path& path) {
  try {
    if (fs::is_directory(path)) {
      read_huggingface(path);
    } else {
      const PackedFile file = read_packed_file(path);
      if (!file.damage.empty()) throw Error(file.damage);
      read_openai(std::string(file.bytes.begin(), file.bytes.end()));
    }
  } catch (const Error& error) {
    throw Error(fmt::format("cannot read the vocabulary {}: {}", path.string(), error.what()));
  }
}

void BpeTokenizer::add_token(const std::string& token) { ids_.emplace(token, static_cast<std::int64_t>(ids_.size())); }

void BpeTokenizer::add_merge(std::string_view line) {
  const std::size_t blank = line.find(' ');
  if (blank == std::string_view::npos || blank == 0 || blank + 1 == line.size() || line.find(' ', blank + 1) != std::string_view::npos)
    throw Error(fmt::format("'{}' is no pair of tokens", line));
  const auto rank = static_cast<std::int64_t>(ranks_.size());
  ranks_.emplace(std::pair(std::string(line.substr(0, blank)), std::string(line.substr(blank + 1))), rank);
}

/// The file's first line is a comment; each further one is a pair. Ids: bytes, bytes that end a word, pairs in order, start, end.
void BpeTokenizer::read_openai(const std::string& text) {
  const std::vector<std::string> lines = lines_of(text);
  if (lines.size() < kMerges + 1) throw Error(fmt::format("it has {} lines, too few for CLIP's {} pairs", lines.size(), kMerges));
  for (const std::string& token : byte_tokens()) add_token(token);
  for (const std::string& token : byte_tokens()) add_token(token + std::string(kWordEnd));
  for (std::size_t i = 1; i <= kMerges; ++i) {
    add_merge(lines[i]);
    std::string joined = lines[i];
    add_token(joined.erase(joined.find(' '), 1));
  }
  start_ = vocab_size();
  add_token(std::string(kStart));
  end_ = vocab_size();
  add_token(std::string(kEnd));
}

void BpeTokenizer::read_huggingface(const fs::path& folder) {
  const auto json = nlohmann::json::parse(read_file(folder / "vocab.json"), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw Error("vocab.json is no JSON object");
  for (const auto& [token, id] : json.items()) {
    if (!id.is_number_integer()) throw Error(fmt::format("vocab.json: the id of '{}' is no number", token));
    ids_.emplace(token, id.get<std::int64_t>());
  }
  for (const std::string& line : lines_of(read_file(folder / "merges.txt")))
    if (!line.empty() && !line.starts_with("#version")) add_merge(line);
  const auto find = [&](std::string_view token) {
    const auto found = ids_.find(std::string(token));
    if (found == ids_.end()) throw Error(fmt::format("vocab.json has no {}", token));
    return found->second;
  };
  start_ = find(kStart);
  end_ = find(kEnd);
}

/// Joins the pair of least rank, everywhere it stands, until no pair has a rank.
std::vector<std::string> BpeTokenizer::join_pairs(const std::string& bytes) const {
  std::vector<std::string> parts;
  for (const char byte : bytes) parts.push_back(byte_symbols()[static_cast<unsigned char>(byte)]);
  parts.back() += kWordEnd;
  while (parts.size() > 1) {
    auto best = ranks_.end();
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks_.find({parts[i], parts[i + 1]});
      if (found != ranks_.end() && (best == ranks_.end() || found->second < best->second)) best = found;
    }
    if (best == ranks_.end()) break;
    std::vector<std::string> joined;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const bool pair = i + 1 < parts.size() && parts[i] == best->first.first && parts[i + 1] == best->first.second;
      joined.push_back(pair ? parts[i] + parts[i + 1] : parts[i]);
      i += pair;
    }
    parts = std::move(joined);
  }
  return parts;
}

std::vector<std::int64_t> BpeTokenizer::encode(std::string_view text) const {
  std::vector<std::int64_t> ids;
  for (const std::string& word : split_words(clean_text(text))) {
    if (word == kStart || word == kEnd) {
      ids.push_back(word == kStart ? start_ : end_);
      continue;
    }
    for (const std::string& part : join_pairs(word)) {
      const auto found = ids_.find(part);
      if (found == ids_.end()) throw Error(fmt::format("the vocabulary has no token '{}': its files do not belong together", part));
      ids.push_back(found->second);
    }
  }
  return ids;
}

std::vector<std::int64_t> BpeTokenizer::tokenize(std::string_view text, std::int64_t length) const {
  std::vector<std::int64_t> ids = encode(text);
  ids.insert(ids.begin(), start_);
  ids.resize(static_cast<std::size_t>(length), end_);
  ids.back() = end_;
  return ids;
}

}  // namespace uvit
