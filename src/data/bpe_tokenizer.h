#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace uvit {

/// CLIP's byte-pair tokenizer (Sennrich et al., arXiv:1508.07909, on bytes): cleaned, lower-cased text is cut into words, digits and runs of other
/// characters; the pair of least rank is joined until none is left. Gives the ids of OpenAI's tokenizer.
class BpeTokenizer {
 public:
  /// @param path  bpe_simple_vocab_16e6.txt.gz (or unpacked), or a folder with Hugging Face's vocab.json and merges.txt.
  /// Throws Error naming the file.
  explicit BpeTokenizer(const std::filesystem::path& path);

  /// The ids of a text without start and end.
  std::vector<std::int64_t> encode(std::string_view text) const;
  /// [start, ids ..., end], cut to `length` with the end last, filled up with the end (as Hugging Face pads, which the official text models use).
  std::vector<std::int64_t> tokenize(std::string_view text, std::int64_t length = 77) const;

  std::int64_t start() const { return start_; }
  std::int64_t end() const { return end_; }
  std::int64_t vocab_size() const { return static_cast<std::int64_t>(ids_.size()); }

 private:
  void read_openai(const std::string& text);
  void read_huggingface(const std::filesystem::path& folder);
  void add_merge(std::string_view line);
  void add_token(const std::string& token);
  std::vector<std::string> join_pairs(const std::string& bytes) const;

  std::unordered_map<std::string, std::int64_t> ids_;
  std::map<std::pair<std::string, std::string>, std::int64_t> ranks_;
  std::int64_t start_ = -1, end_ = -1;
};

}  // namespace uvit
