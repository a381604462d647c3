#include <torch/torch.h>

#include "commands/sampling_options.h"

#include <fmt/format.h>

#include <algorithm>

#include "attention/device.h"
#include "core/error.h"
#include "core/name_table.h"
#include "core/progress.h"

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
  command.add_flag("--raw-weights", raw_weights, "The weights of the last step instead of their moving average");
}

LoadedModel load_for_sampling(const SamplingOptions& options) {
  std::optional<Config> config;
  if (!options.config.empty()) config = load_config(options.config);
  LoadedModel loaded = load_model(options.checkpoint, !options.raw_weights, config);
  SampleConfig& sample = loaded.config.sample;
  if (options.num_steps) sample.num_steps = *options.num_steps;
  if (options.guidance_scale) sample.guidance_scale = *options.guidance_scale;
  if (options.solver) sample.solver = *options.solver;
  if (options.seed) sample.seed = *options.seed;
  if (options.batch_size) sample.batch_size = *options.batch_size;
  if (options.precision) sample.precision = *options.precision;
  if (options.device) loaded.config.train.device = *options.device;
  validate(loaded.config);
  const std::int64_t threads = options.threads.value_or(loaded.config.train.threads);
  if (threads > 0) at::set_num_threads(static_cast<int>(threads));
  loaded.model->to(select_device(loaded.config.train.device));
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

GenerateRequest make_request(const LoadedModel& loaded, std::int64_t n, const std::vector<std::int64_t>& classes) {
  const std::int64_t count = loaded.config.data.num_classes;
  GenerateRequest request;
  for (std::int64_t i = 0; i < n; ++i) {
    request.seeds.push_back(loaded.config.sample.seed + static_cast<std::uint64_t>(i));
    if (count > 0) request.labels.push_back(classes.empty() ? i % count : classes[static_cast<std::size_t>(i) % classes.size()]);
  }
  return request;
}

GenerateReport draw(LoadedModel& loaded, const GenerateRequest& request, const std::function<void(std::size_t, const Image&)>& sink) {
  Progress progress("sample", static_cast<std::int64_t>(request.seeds.size()), "images");
  return generate(
      *loaded.model, loaded.config, request,
      [&](std::size_t index, const at::Tensor& sample) {
        const at::Tensor x = sample.to(at::kCPU, at::kFloat).contiguous();
        Image image{x.size(0), x.size(1), x.size(2), {}};
        image.pixels = quantise({x.const_data_ptr<float>(), static_cast<std::size_t>(x.numel())});
        sink(index, image);
      },
      [&](std::int64_t done) { progress.update(done); });
}

std::map<std::string, std::string> sampling_recipe(const LoadedModel& loaded, const GenerateReport& report) {
  const SampleConfig& sample = loaded.config.sample;
  return {{"weights", loaded.weights},
          {"weights_hash", loaded.weights_hash},
          {"step", std::to_string(loaded.step)},
          {"solver", sample.solver},
          {"num_steps", std::to_string(sample.num_steps)},
          {"nfe", std::to_string(report.nfe)},
          {"guidance_scale", fmt::format("{} (w = {:g})", sample.guidance_scale, sample.guidance_scale - 1)},
          {"precision", sample.precision},
          {"device", loaded.config.train.device},
          {"batch_size", std::to_string(sample.batch_size)}};
}

}  // namespace uvit
