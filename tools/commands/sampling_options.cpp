#include <torch/torch.h>

#include "commands/sampling_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "attention/device.h"
#include "checkpoint/autoencoder_file.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/name_table.h"
#include "core/progress.h"
#include "data/dataset.h"
#include "samplers/sample_recipe.h"
#include "train/processes.h"
#include "train/text_context.h"

namespace uvit {

void SamplingOptions::add_to(CLI::App& command) {
  command.add_option("CHECKPOINT", checkpoint, "Run folder, step folder, .safetensors file or official .pth")->required();
  command.add_option("--config", config, "Configuration of a bare weight file (.safetensors, .pth), which does not say its heads or its diffusion");
  command.add_option("--num-steps", num_steps, "Solver steps");
  command.add_option("--guidance-scale", guidance_scale, "s in u + s (c - u); 1 is off. The U-ViT papers' w is s - 1");
  command.add_option("--solver", solver, "A row of `uvit list solvers`");
  command.add_option("--seed", seed, "Image i has seed S + i");
  command.add_option("--batch-size", batch_size, "Images a network call");
  command.add_option("--precision", precision, "fp32, bf16 or fp16");
  command.add_option("--device", device, "cpu or cuda");
  command.add_option("--threads", threads, "CPU threads; 0: all");
  command.add_option("--guide", guide, "Autoguidance: a worse checkpoint of the same data (earlier, smaller, a twin), which guidance leads away from");
  command.add_option("--set", overrides, "sample.KEY=VALUE over the run's [sample], for instance sample.eta=1 (keys: uvit train --help-keys)");
  command.add_option("--autoencoder", autoencoder, "Decodes latents (default: data.autoencoder of the run)");
  command.add_option("--prompt", prompts, "A text to draw, for a model with context tokens; may be given often")->expected(1)->take_all();
  command.add_option("--prompts", prompt_file, "File of prompts, one a line");
  command.add_option("--text-encoder", text_encoder, "CLIP text encoder for prompts (default: data.text_encoder of the run)");
  command.add_option("--vocabulary", vocabulary, "Its vocabulary (default: data.vocabulary of the run)");
  command.add_flag("--raw-weights", raw_weights, "The weights of the last step instead of their moving average");
}

void SamplingOptions::add_processes_to(CLI::App& command) {
  command.add_option("--processes", processes, "Processes on this machine that share the drawing of images; the images are the same")
      ->check(CLI::Range(1, 1024));
}

namespace {

/// The guide with the weights of its moving average, on the model's device. A run folder knows its configuration; a bare weight file takes the model's.
std::shared_ptr<LoadedModel> load_guide(const std::string& path, const LoadedModel& loaded) {
  std::optional<Config> config;
  if (!std::filesystem::is_directory(path)) config = loaded.config;
  auto guide = std::make_shared<LoadedModel>(load_model(path, true, config));
  guide->model->to(loaded.model->parameters().front().device());
  return guide;
}

Config with_overrides(const Config& config, const std::vector<std::string>& overrides) {
  for (const std::string& one : overrides)
    if (!one.starts_with("sample.")) throw UsageError(fmt::format("--set {}: only keys of [sample] can be set for a trained model", one));
  return overrides.empty() ? config : parse_config(to_toml(config), "the checkpoint's configuration", overrides);
}

}  // namespace

LoadedModel load_for_sampling(const SamplingOptions& options) {
  std::optional<Config> config;
  if (!options.config.empty()) config = load_config(options.config);
  LoadedModel loaded = load_model(options.checkpoint, !options.raw_weights, config);
  loaded.config = with_overrides(loaded.config, options.overrides);
  SampleConfig& sample = loaded.config.sample;
  if (options.num_steps) sample.num_steps = *options.num_steps;
  if (options.guidance_scale) sample.guidance_scale = *options.guidance_scale;
  if (options.solver) sample.solver = *options.solver;
  if (options.seed) sample.seed = *options.seed;
  if (options.batch_size) sample.batch_size = *options.batch_size;
  if (options.precision) sample.precision = *options.precision;
  if (options.device) loaded.config.train.device = *options.device;
  if (!options.autoencoder.empty()) loaded.config.data.autoencoder = options.autoencoder;
  if (!options.text_encoder.empty()) loaded.config.data.text_encoder = options.text_encoder;
  if (!options.vocabulary.empty()) loaded.config.data.vocabulary = options.vocabulary;
  validate(loaded.config);
  const std::int64_t threads = options.threads.value_or(loaded.config.train.threads);
  const Launch launch = read_launch(process_environment());
  if (threads > 0) at::set_num_threads(static_cast<int>(threads));
  if (threads == 0 && !launch.alone()) set_threads_of_process(TrainConfig{}, launch);
  loaded.model->to(device_of_process(loaded.config.train, launch));
  if (!options.guide.empty()) loaded.guide = load_guide(options.guide, loaded);
  return loaded;
}

std::vector<std::int64_t> parse_classes(const std::vector<std::string>& words, const LoadedModel& loaded) {
  const std::int64_t count = loaded.config.data.num_classes;
  if (!words.empty() && count == 0) throw Error("--class: this model was trained without classes");
  std::vector<std::int64_t> classes;
  for (const std::string& word : words) {
    if (!word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) { return std::isdigit(c); })) {
      const std::int64_t number = word.size() < 10 ? std::stoll(word) : count;
      if (number >= count) throw Error(fmt::format("--class {}: out of range, the model has classes 0 to {}", word, count - 1));
      classes.push_back(number);
      continue;
    }
    const auto& names = loaded.class_names;
    const auto found = std::find(names.begin(), names.end(), word);
    if (found == names.end()) {
      if (names.empty()) throw Error(fmt::format("--class {}: not a number from 0 to {}, and this checkpoint holds no class names", word, count - 1));
      throw_unknown_name("class", word, names);
    }
    classes.push_back(found - names.begin());
  }
  return classes;
}

std::vector<std::string> read_prompts(const SamplingOptions& options) {
  std::vector<std::string> prompts = options.prompts;
  if (options.prompt_file.empty()) return prompts;
  std::istringstream lines(read_file(options.prompt_file));
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty()) prompts.push_back(line);
  }
  return prompts;
}

std::size_t prompt_of_image(std::size_t image, std::size_t images, std::size_t prompts) { return image * prompts / std::max(images, prompts); }

void add_prompts(const SamplingOptions& options, const LoadedModel& loaded, GenerateRequest& request) {
  const DataConfig& data = loaded.config.data;
  const std::vector<std::string> prompts = read_prompts(options);
  const ModelConfig& model = loaded.config.model;
  if (model.context_dim == 0) {
    if (!prompts.empty()) throw Error("--prompt: this model was trained without text; it has no context tokens");
    return;
  }
  if (prompts.empty()) throw Error("this model draws what a text says: give --prompt or --prompts");
  if (data.text_encoder.empty() || data.vocabulary.empty())
    throw Error("prompts need the text encoder and its vocabulary: give --text-encoder and --vocabulary (or data.text_encoder and data.vocabulary)");
  TextContext context(data.text_encoder, data.vocabulary, model.context_tokens, loaded.config.train.device);
  const at::Tensor encoded = context.encode(prompts);
  std::vector<std::int64_t> rows;
  for (std::size_t i = 0; i < request.seeds.size(); ++i) rows.push_back(static_cast<std::int64_t>(prompt_of_image(i, request.seeds.size(), prompts.size())));
  request.contexts = encoded.index_select(0, at::tensor(rows, at::kLong));
  request.empty_context = context.encode({""})[0];
}

GenerateRequest make_request(const LoadedModel& loaded, std::int64_t n, const std::vector<std::int64_t>& classes) {
  const std::int64_t count = loaded.config.data.num_classes;
  GenerateRequest request;
  const DataConfig& data = loaded.config.data;
  if (is_latent_dataset(data.dataset))
    request.decode = make_latent_decoder(data.autoencoder, data.scale_factor, loaded.model->parameters().front().device());
  if (loaded.guide) request.guide = {loaded.guide->model.get(), loaded.guide->config};
  for (std::int64_t i = 0; i < n; ++i) {
    request.seeds.push_back(loaded.config.sample.seed + static_cast<std::uint64_t>(i));
    if (count > 0) request.labels.push_back(classes.empty() ? i % count : classes[static_cast<std::size_t>(i) % classes.size()]);
  }
  return request;
}

Image to_image(const at::Tensor& sample) {
  const at::Tensor x = sample.to(at::kCPU, at::kFloat).contiguous();
  Image image{x.size(0), x.size(1), x.size(2), {}};
  image.pixels = quantise({x.const_data_ptr<float>(), static_cast<std::size_t>(x.numel())});
  return image;
}

at::Tensor read_as_sample(const std::string& path, const LoadedModel& loaded) {
  const UViTOptions& o = loaded.model->options();
  const Image image = resize_and_center_crop(read_image(path, o.channels), o.height, o.width);
  return at::tensor(at::ArrayRef<std::uint8_t>(image.pixels)).to(at::kFloat).view({o.channels, o.height, o.width}).div(127.5).sub(1);
}

GenerateReport draw(LoadedModel& loaded, const GenerateRequest& request, const std::function<void(std::size_t, const Image&)>& sink) {
  warn_of_settings_without_effect(loaded.config);
  std::optional<Progress> progress;
  if (!request.processes || request.processes->is_first()) progress.emplace("sample", static_cast<std::int64_t>(request.seeds.size()), "images");
  return generate(
      *loaded.model, loaded.config, request,
      [&](std::size_t index, const at::Tensor& sample) { sink(index, to_image(sample)); },
      [&](std::int64_t done) {
        if (progress) progress->update(done);
      });
}

std::map<std::string, std::string> sampling_recipe(const LoadedModel& loaded, const GenerateReport& report) {
  std::map<std::string, std::string> recipe = sample_recipe(loaded.config, report.nfe);
  recipe.insert({{"weights", loaded.weights}, {"weights_hash", loaded.weights_hash}, {"step", std::to_string(loaded.step)}});
  if (loaded.guide) recipe.insert({{"guide", loaded.guide->weights}, {"guide_hash", loaded.guide->weights_hash}});
  return recipe;
}

}  // namespace uvit
