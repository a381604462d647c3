#pragma once
#include <filesystem>
#include <memory>
#include <string>

#include "io/host_tensor.h"
#include "model/clip_text.h"

namespace uvit {

/// The text encoder's tensors with Hugging Face's names and no prefix, from a file with Hugging Face's names (with or without text_model.) or those of
/// OpenAI and open_clip (transformer.resblocks.i...). What belongs to the image side, and the projections, are left out. Throws Error for anything else.
TensorFile to_huggingface_clip_text(TensorFile file);

/// The options that names and shapes imply: a head is 64 wide, as in every published CLIP.
ClipTextOptions infer_clip_text_options(const TensorFile& file);

/// Loads .safetensors, .pth or .bin, or a folder that holds model.safetensors or pytorch_model.bin; num_attention_heads and hidden_act of a config.json
/// beside the file are followed. "untrained:WIDTH" is an encoder of two layers with initial values: it tells words apart and knows nothing of their
/// meaning, which is enough for captions of few words. @param num_heads  over both; 0: not given. Throws Error naming the file.
std::shared_ptr<ClipTextEncoder> load_clip_text(const std::filesystem::path& path, std::int64_t num_heads = 0);

/// What tells text encoders apart: SHA-256 of the file of weights, or the whole name of an untrained one.
std::string text_encoder_hash(const std::filesystem::path& path);

}  // namespace uvit
