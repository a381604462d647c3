#pragma once
#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "data/image_io.h"
#include "metrics/score.h"
#include "samplers/generate.h"

namespace uvit {

/// The options that `sample` and `score` share: which weights, and how images are drawn from them. What is not given comes from the run's [sample].
struct SamplingOptions {
  std::string checkpoint, config;
  std::optional<std::int64_t> num_steps, batch_size;
  std::optional<double> guidance_scale;
  std::optional<std::string> solver, precision, device;
  std::optional<std::uint64_t> seed;
  std::optional<std::int64_t> threads;
  bool raw_weights = false;
  std::string autoencoder, text_encoder, vocabulary;  ///< over data.* of the run
  std::vector<std::string> prompts;    ///< texts for a model with context tokens
  std::string prompt_file;             ///< more of them, one a line
  std::string guide;                   ///< a worse checkpoint for autoguidance
  std::vector<std::string> overrides;  ///< "sample.key=value"
  std::int64_t processes = 1;          ///< that share the micro-batches of images out among them

  void add_to(CLI::App& command);
  void add_processes_to(CLI::App& command);
};

/// Loads the checkpoint, and the guide where there is one, and puts the options over its [sample].
LoadedModel load_for_sampling(const SamplingOptions& options);

/// Class numbers from names or numbers ("3", "Bag"). Throws Error for one that is not there, with the nearest name.
std::vector<std::int64_t> parse_classes(const std::vector<std::string>& words, const LoadedModel& loaded);

/// Images 0 .. n-1 of the seed: image i has seed + i and label classes[i % classes.size()] (all classes in turn when `classes` is empty);
/// for a latent model with its decoder.
GenerateRequest make_request(const LoadedModel& loaded, std::int64_t n, const std::vector<std::int64_t>& classes);

/// Adds the contexts of the prompts: the images are shared out among them in order, so that one row of a grid is one prompt.
/// Throws Error for prompts without a text model, and the other way round.
void add_prompts(const SamplingOptions& options, const LoadedModel& loaded, GenerateRequest& request);

/// The prompt that image i of `images` is drawn from.
std::size_t prompt_of_image(std::size_t image, std::size_t images, std::size_t prompts);

/// The prompts of --prompt and --prompts, in order.
std::vector<std::string> read_prompts(const SamplingOptions& options);

/// Draws the request with a progress bar and hands over each image in 8 bits.
GenerateReport draw(LoadedModel& loaded, const GenerateRequest& request, const std::function<void(std::size_t, const Image&)>& sink);

/// The pixels of a sample in 8 bits.
Image to_image(const at::Tensor& sample);

/// Reads an image file as the model's images are: its channels, scaled and cut to its size. @return [C, H, W] in [-1, 1]
at::Tensor read_as_sample(const std::string& path, const LoadedModel& loaded);

/// What a recipe says of how images were drawn; every [sample] key that is not at its default is in it.
std::map<std::string, std::string> sampling_recipe(const LoadedModel& loaded, const GenerateReport& report);

}  // namespace uvit
