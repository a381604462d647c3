// Latent diffusion end to end, small: an autoencoder is trained, a dataset encoded, captions encoded, a model trained on both, latents decoded.
#include <torch/torch.h>

#include <catch2/catch.hpp>

#include "checkpoint/autoencoder_file.h"
#include "checkpoint/checkpoint.h"
#include "core/atomic_file.h"
#include "data/dataset.h"
#include "io/safetensors.h"
#include "samplers/generate.h"
#include "support/fixtures.h"
#include "support/scratch.h"
#include "support/tensors.h"
#include "tiny_run.h"
#include "train/encode_latents.h"
#include "train/text_context.h"
#include "train/train_autoencoder.h"

namespace fs = std::filesystem;
using namespace uvit;
using namespace uvit::test;

namespace {

/// 8 x 8 grey images of three classes, and an autoencoder of one level down trained on them.
AutoencoderTraining tiny_autoencoder(const ScratchFolder& folder) {
  AutoencoderTraining training;
  training.data = tiny_config(folder.path()).data;
  training.model.in_channels = training.model.out_channels = 1;
  training.model.ch = 32;
  training.model.ch_mult = {1, 1};
  training.model.num_res_blocks = 1;
  training.model.embed_dim = training.model.z_channels = 2;
  training.optimizer.lr = 2e-3;
  training.optimizer.warmup_steps = 5;
  training.optimizer.clip_grad_norm = 1;
  training.steps = 60;
  training.batch_size = 8;
  training.out = folder / "autoencoder.safetensors";
  return training;
}

EncodeRequest encoding(const ScratchFolder& folder, Split split) {
  EncodeRequest request;
  request.data = tiny_config(folder.path()).data;
  request.split = split;
  request.autoencoder = folder / "autoencoder.safetensors";
  request.out = folder / "latents";
  request.flips = true;
  request.shard_size = 10;
  request.batch_size = 4;
  return request;
}

/// The text encoder of the fixtures with a vocabulary that fits its 1000 ids.
void write_text_encoder(const fs::path& folder) {
  make_directories(folder);
  fs::copy_file(fixtures() / "clip_text_state.safetensors", folder / "model.safetensors");
  write_file(folder / "config.json", std::string_view(R"({"num_attention_heads": 4})"));
  write_file(folder / "vocab.json", std::string_view(R"({"a</w>": 1, "b</w>": 2, "c</w>": 3, "<|startoftext|>": 4, "<|endoftext|>": 5})"));
  write_file(folder / "merges.txt", std::string_view("#version: 0.2\n"));
}

Config latent_config(const ScratchFolder& folder, double scale_factor) {
  Config config = tiny_config(folder.path());
  config.model.patch_size = 2;
  config.data.dataset = "latents";
  config.data.path = (folder / "latents").string();
  config.data.image_size = {4};
  config.data.channels = 2;
  config.data.autoencoder = (folder / "autoencoder.safetensors").string();
  config.data.scale_factor = scale_factor;
  config.train.steps = 4;
  config.train.sample_every = 4;
  return config;
}

}  // namespace

TEST_CASE("an autoencoder learns, latents are encoded in shards that survive an interruption, and a model trains on them with captions") {
  const ScratchFolder folder;
  AutoencoderTraining training = tiny_autoencoder(folder);
  const AutoencoderResult trained = train_autoencoder(training);
  training.steps = 1;
  training.out = folder / "new/folder/untrained.safetensors";
  CHECK(trained.psnr > train_autoencoder(training).psnr + 2);
  training.out = folder / "autoencoder";
  CHECK(error_of([&] { train_autoencoder(training); }).find("ends in .safetensors") != std::string::npos);
  CHECK(load_autoencoder(folder / "autoencoder.safetensors")->options().scale_factor == Approx(trained.scale_factor));

  const LatentIndex index = encode_latents(encoding(folder, Split::train));
  CHECK(index.count == 23);
  CHECK(index.height == 4);
  REQUIRE(index.std.size() == 2);
  CHECK(std::sqrt((index.std[0] * index.std[0] + index.std[1] * index.std[1]) / 2) == Approx(1).margin(0.3));
  encode_latents(encoding(folder, Split::test));

  // moments of the stored shard are those of the image, whichever shard it lies in; the mirrored ones those of the mirrored image
  const auto autoencoder = load_autoencoder(folder / "autoencoder.safetensors");
  const auto images = open_dataset(tiny_config(folder.path()).data, Split::train);
  at::Tensor image = torch::empty({1, 1, 8, 8});
  images->read_values(21, {.noise = false}, {image.data_ptr<float>(), 64});
  const TensorFile last = read_safetensors(folder / "latents/train/latents-00002.safetensors");
  check_tensor("moments", to_torch(last.at("moments"))[1], autoencoder->moments(image).detach()[0], 1e-5);
  check_tensor("mirrored", to_torch(last.at("moments_flipped"))[1], autoencoder->moments(image.flip(3)).detach()[0], 1e-5);

  // a shard that is gone is made anew, with equal bytes
  const std::string before = read_file(folder / "latents/train/latents-00001.safetensors");
  fs::remove(folder / "latents/train/latents-00001.safetensors");
  LatentIndex unfinished = index;
  unfinished.mean.clear();
  unfinished.std.clear();
  write_latent_index(folder / "latents/train", unfinished);
  const LatentIndex again = encode_latents(encoding(folder, Split::train));
  CHECK(again.mean == index.mean);
  CHECK((read_file(folder / "latents/train/latents-00001.safetensors") == before));
  EncodeRequest other = encoding(folder, Split::train);
  other.flips = false;
  CHECK(error_of([&] { encode_latents(other); }).find("--flip") != std::string::npos);

  // captions from class names: image i has class i % 3, and the four forms come in turn
  CHECK(error_of([&] { class_captions(folder / "latents/train"); }).find("no class names") != std::string::npos);
  LatentIndex named = again;
  named.class_names = {"Bag", "Coat", "Ankle boot"};
  write_latent_index(folder / "latents/train", named);
  const std::vector<Caption> from_names = class_captions(folder / "latents/train");
  REQUIRE(from_names.size() == 23);
  CHECK(from_names[1].text == "photo of Coat");
  CHECK((from_names[11].image == 11 && from_names[11].text == "Ankle boot on black"));
  write_latent_index(folder / "latents/train", again);

  const Config labelled = latent_config(folder, index.scale_factor);
  const TrainResult result = train({labelled, folder / "labelled"});
  CHECK(result.step == 4);
  CHECK(fs::exists(folder / "labelled/samples/step-4.png"));

  write_text_encoder(folder / "clip");
  std::string captions;
  for (int i = 0; i < 23; ++i) captions += std::to_string(i) + "\t" + std::string(1, static_cast<char>('a' + i % 3)) + "\n";
  write_file(folder / "captions.txt", captions);
  for (const char* split : {"train", "test"}) {
    EncodeTextRequest text{folder / "captions.txt", folder / "clip", folder / "clip", folder / "latents" / split, 5, 9, "cpu"};
    CHECK(encode_captions(text) == 23);
  }
  Config text = labelled;
  text.data.num_classes = 0;
  text.model.context_dim = 32;
  text.model.context_tokens = 5;
  CHECK(train({text, folder / "text"}).step == 4);
  text.model.context_tokens = 6;
  CHECK(error_of([&] { train({text, folder / "text6"}); }).find("5 tokens of width 32") != std::string::npos);

  // an image is a function of its seed and prompt alone, and prompts matter
  const LoadedModel loaded = load_model(folder / "text");
  TextContext context(folder / "clip", folder / "clip", 5);
  GenerateRequest request;
  request.seeds = {1, 2, 3};
  request.contexts = context.encode({"a", "b", "a"});
  request.empty_context = context.encode({""})[0];
  request.decode = make_latent_decoder(folder / "autoencoder.safetensors", index.scale_factor, at::kCPU);
  Config config = loaded.config;
  config.sample.guidance_scale = 2;
  const auto draw = [&](const GenerateRequest& what) {
    std::vector<at::Tensor> drawn;
    generate(*loaded.model, config, what, [&](std::size_t, const at::Tensor& x) { drawn.push_back(x); });
    return drawn;
  };
  const std::vector<at::Tensor> three = draw(request);
  CHECK(three[0].sizes() == at::IntArrayRef({1, 8, 8}));
  GenerateRequest one = request;
  one.seeds = {2};
  one.contexts = request.contexts.narrow(0, 1, 1);
  CHECK(at::equal(draw(one)[0], three[1]));
  one.contexts = request.contexts.narrow(0, 0, 1);
  CHECK_FALSE(at::equal(draw(one)[0], three[1]));
  one.contexts = at::Tensor();
  CHECK(error_of([&] { draw(one); }).find("prompts") != std::string::npos);
}

TEST_CASE("captions are read from lines and from COCO's json") {
  const ScratchFolder folder;
  write_file(folder / "lines.txt", std::string_view("first\nsecond\n"));
  std::vector<Caption> captions = read_captions(folder / "lines.txt");
  REQUIRE(captions.size() == 2);
  CHECK((captions[1].image == 1 && captions[1].text == "second"));
  write_file(folder / "numbered.txt", std::string_view("7\ta\tb\n2\tc\n7\td\n"));
  captions = read_captions(folder / "numbered.txt");
  REQUIRE(captions.size() == 3);
  CHECK((captions[0].image == 2 && captions[1].text == "a\tb" && captions[2].text == "d"));
  write_file(folder / "coco.json", std::string_view(R"({"images": [{"id": 30}, {"id": 4}], "annotations": [
    {"id": 5, "image_id": 30, "caption": "late"}, {"id": 2, "image_id": 30, "caption": "early"}, {"id": 9, "image_id": 4, "caption": "first"}]})"));
  captions = read_captions(folder / "coco.json");
  REQUIRE(captions.size() == 3);
  CHECK((captions[0].image == 0 && captions[0].text == "first" && captions[1].text == "early" && captions[2].image == 1));
  write_file(folder / "bad.txt", std::string_view("x\tcaption\n"));
  CHECK(error_of([&] { read_captions(folder / "bad.txt"); }).find("line 1") != std::string::npos);
  write_file(folder / "bad.json", std::string_view("{}"));
  CHECK(error_of([&] { read_captions(folder / "bad.json"); }).find("COCO") != std::string::npos);
}
