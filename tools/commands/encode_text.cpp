#include <torch/torch.h>

#include <fmt/format.h>

#include "commands/commands.h"
#include "train/text_context.h"
#include "train/trainer.h"

namespace uvit {
namespace {

void run(const EncodeTextRequest& request) {
  install_signal_handlers();
  const std::int64_t done = encode_captions(request);
  fmt::print("{} captions in {}\n", done, request.out.string());
}

}  // namespace

void add_encode_text_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("encode-text", "Encode captions to context tokens beside the latents of a split");
  auto request = std::make_shared<EncodeTextRequest>();
  command->add_option("CAPTIONS", request->captions, "COCO's captions .json, or lines IMAGE<tab>CAPTION, or line i for image i, or a split of packed shards; \"class-names\": made from the names of the latents' classes")->required();
  command->add_option("-o,--out", request->out, "Folder of the split, for instance DIR/train of `uvit encode DATA -o DIR`")->required();
  command->add_option("--text-encoder", request->text_encoder, "CLIP text encoder: .safetensors, .pth or a Hugging Face folder; untrained:WIDTH for one with initial values")->required();
  command->add_option("--vocabulary", request->vocabulary, "bpe_simple_vocab_16e6.txt.gz, or a folder with vocab.json and merges.txt")->required();
  command->add_option("--tokens", request->tokens, "Tokens of a context; 0: as many as the encoder takes (77)");
  command->add_option("--shard-size", request->shard_size, "Captions a file");
  command->add_option("--device", request->device, "cpu or cuda");
  command->callback([request] { run(*request); });
}

}  // namespace uvit
