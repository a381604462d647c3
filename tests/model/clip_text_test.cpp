#include <torch/torch.h>

#include "model/clip_text.h"

#include "checkpoint/clip_text_file.h"
#include "core/atomic_file.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "support/fixtures.h"
#include "support/scratch.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

constexpr std::int64_t kHeads = 4;  // of the fixture, whose heads are 8 wide

TensorFile fixture_state() { return read_safetensors(fixtures() / "clip_text_state.safetensors"); }

/// The fixture's state with OpenAI's names: q, k and v packed into one matrix.
TensorFile as_openai() {
  const TensorFile own = fixture_state();
  TensorFile file;
  const auto add = [&](const std::string& name, const std::string& from) { file.tensors.emplace_back(name, own.at(from)); };
  add("token_embedding.weight", "embeddings.token_embedding.weight");
  add("positional_embedding", "embeddings.position_embedding.weight");
  for (int i = 0; i < 3; ++i) {
    const std::string theirs = "transformer.resblocks." + std::to_string(i) + ".", ours = "encoder.layers." + std::to_string(i) + ".";
    for (const std::string what : {"weight", "bias"}) {
      add(theirs + "ln_1." + what, ours + "layer_norm1." + what);
      add(theirs + "ln_2." + what, ours + "layer_norm2." + what);
      add(theirs + "attn.out_proj." + what, ours + "self_attn.out_proj." + what);
      add(theirs + "mlp.c_fc." + what, ours + "mlp.fc1." + what);
      add(theirs + "mlp.c_proj." + what, ours + "mlp.fc2." + what);
      HostTensor packed = own.at(ours + "self_attn.q_proj." + what);
      for (const std::string projection : {"k_proj.", "v_proj."}) {
        const HostTensor& more = own.at(ours + "self_attn." + projection + what);
        packed.data.insert(packed.data.end(), more.data.begin(), more.data.end());
      }
      packed.shape.front() *= 3;
      file.tensors.emplace_back(theirs + "attn.in_proj_" + what, packed);
    }
  }
  add("ln_final.weight", "final_layer_norm.weight");
  add("ln_final.bias", "final_layer_norm.bias");
  file.tensors.emplace_back("logit_scale", HostTensor{DType::f32, {}, std::vector<std::byte>(4)});
  file.tensors.emplace_back("visual.proj", HostTensor{DType::f32, {1}, std::vector<std::byte>(4)});
  return file;
}

void check_hidden_states(ClipTextEncoder& encoder) {
  const torch::NoGradGuard no_grad;
  const TensorFile io = read_safetensors(fixtures() / "clip_text_io.safetensors");
  check_tensor("last_hidden_state", encoder.forward(to_torch(io.at("ids_small"))), to_torch(io.at("last_hidden_state.f32")), 2e-5);
}

}  // namespace

TEST_CASE("the text encoder agrees with Hugging Face's CLIPTextModel, under its names, with the prefix, and under OpenAI's names") {
  const ScratchFolder folder;
  const auto plain = load_clip_text(fixtures() / "clip_text_state.safetensors", kHeads);
  check_hidden_states(*plain);

  TensorFile whole = fixture_state();  // as a whole CLIP model is saved
  for (auto& [name, tensor] : whole.tensors) name = "text_model." + name;
  whole.tensors.emplace_back("text_model.embeddings.position_ids", HostTensor{DType::i64, {1}, std::vector<std::byte>(8)});
  whole.tensors.emplace_back("vision_model.pre_layrnorm.bias", HostTensor{DType::f32, {1}, std::vector<std::byte>(4)});
  write_safetensors(folder / "model.safetensors", whole);
  write_file(folder / "config.json", std::string_view(R"({"text_config": {"num_attention_heads": 4, "hidden_act": "quick_gelu"}})"));
  check_hidden_states(*load_clip_text(folder.path()));

  write_pth_state_dict(folder / "openai.pth", as_openai());
  check_hidden_states(*load_clip_text(folder / "openai.pth", kHeads));

  write_file(folder / "config.json", std::string_view(R"({"text_config": {"num_attention_heads": 4, "hidden_act": "gelu"}})"));
  CHECK_FALSE(load_clip_text(folder.path())->options().quick_gelu);
}

TEST_CASE("a token sees only those before it, and a batch is as each of its texts alone") {
  const torch::NoGradGuard no_grad;
  const auto encoder = load_clip_text(fixtures() / "clip_text_state.safetensors", kHeads);
  at::Tensor ids = torch::arange(20, at::kLong).view({2, 10});
  const at::Tensor before = encoder->forward(ids);
  ids[1][6] = 500;
  const at::Tensor after = encoder->forward(ids);
  check_tensor("before the change", after.narrow(1, 0, 6), before.narrow(1, 0, 6), 1e-6);
  CHECK((after[1][6] - before[1][6]).abs().max().item<double>() > 1e-3);
  CHECK((after[1][9] - before[1][9]).abs().max().item<double>() > 1e-5);
  check_tensor("alone", encoder->forward(ids.narrow(0, 1, 1)), after.narrow(0, 1, 1), 1e-6);
}

TEST_CASE("CLIP ViT-L/14's own sizes have the published number of parameters; what does not fit gets one clear line") {
  const ClipTextEncoder published{ClipTextOptions{}};
  std::int64_t count = 0;
  for (const at::Tensor& parameter : published.parameters()) count += parameter.numel();
  CHECK(count == 123060480);

  CHECK(error_of([] { load_clip_text("nothing.pth"); }).find("no such text encoder") != std::string::npos);
  CHECK(error_of([] { load_clip_text(fixtures() / "vae_state.safetensors"); }).find("no CLIP text encoder") != std::string::npos);
  CHECK(error_of([] { load_clip_text(fixtures() / "clip_text_state.safetensors", 5); }).find("5 heads") != std::string::npos);
  const auto encoder = load_clip_text(fixtures() / "clip_text_state.safetensors", kHeads);
  CHECK(error_of([&] { encoder->forward(torch::zeros({1, 78}, at::kLong)); }).find("77") != std::string::npos);
  CHECK(error_of([&] { encoder->forward(torch::full({1, 3}, 1000, at::kLong)); }).find("999") != std::string::npos);
}

TEST_CASE("an untrained text encoder is a function of its width, has the whole vocabulary and tells words apart") {
  const torch::NoGradGuard no_grad;
  const auto encoder = load_clip_text("untrained:64");
  CHECK(encoder->options().vocab_size == 49408);
  CHECK(encoder->options().embed_dim == 64);
  const at::Tensor ids = torch::tensor({{49406, 320, 49407}, {49406, 1125, 49407}}, at::kLong);
  const at::Tensor contexts = encoder->forward(ids);
  CHECK(at::equal(contexts, load_clip_text("untrained:64")->forward(ids)));
  CHECK((contexts[0][1] - contexts[1][1]).abs().mean().item<double>() > 0.3);
  CHECK(text_encoder_hash("untrained:64") == "untrained:64");
  CHECK(text_encoder_hash(fixtures() / "clip_text_state.safetensors").size() == 64);
  for (const char* width : {"", "63", "64x", "-64", "8192"})
    CHECK(error_of([&] { load_clip_text(std::string("untrained:") + width); }).find("multiple of 32") != std::string::npos);
}
