#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/bpe_tokenizer.h"
#include "model/clip_text.h"

namespace uvit {

/// Texts to context tokens: byte-pair tokenizer and CLIP text encoder.
class TextContext {
 public:
  /// @param tokens  length of a context; 0: as long as the encoder takes (77). Throws Error for files that are missing or do not belong together.
  TextContext(const std::filesystem::path& text_encoder, const std::filesystem::path& vocabulary, std::int64_t tokens = 0, const std::string& device = "cpu");

  /// @return [texts, tokens, dim] float32 on the CPU. A text's context does not depend on the others: the encoder sees one at a time, and equal ones once.
  at::Tensor encode(const std::vector<std::string>& texts);
  std::int64_t tokens() const { return tokens_; }
  std::int64_t dim() const { return encoder_->options().embed_dim; }

 private:
  std::shared_ptr<ClipTextEncoder> encoder_;
  BpeTokenizer tokenizer_;
  std::int64_t tokens_;
  at::Device device_;
};

/// A caption and the number of the image it belongs to.
struct Caption {
  std::int64_t image = 0;
  std::string text;
};

/// Captions of a file: COCO's json (images in order of their id, captions in order of theirs), or lines "IMAGE<tab>CAPTION", or one caption a line,
/// line i for image i; or of packed shards (a folder, a .tar file). Sorted by image. Throws Error naming file and line.
std::vector<Caption> read_captions(const std::filesystem::path& path);

/// A caption for each image of a split of latents, made from the name of its class: "bag", "photo of bag", "picture of one bag", "bag on black", in turn.
/// Throws Error where the latents have no class names.
std::vector<Caption> class_captions(const std::filesystem::path& split_folder);

struct EncodeTextRequest {
  std::filesystem::path captions;  ///< a file, or "class-names"
  std::filesystem::path text_encoder, vocabulary, out;  ///< out: the split's folder, beside its latents
  std::int64_t tokens = 0, shard_size = 512;
  std::string device = "cpu";
};

/// Encodes captions into shards beside the latents of a split, and the empty text. Goes on where an interrupted call stopped.
/// @return number of captions encoded in all; fewer than there are where it was interrupted
std::int64_t encode_captions(const EncodeTextRequest& request);

}  // namespace uvit
