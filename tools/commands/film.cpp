#include <torch/torch.h>

#include <fmt/format.h>

#include <algorithm>

#include "commands/commands.h"
#include "commands/sampling_options.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "data/apng.h"

namespace uvit {
namespace {

struct Arguments {
  SamplingOptions sampling;
  std::int64_t count = 4, frames = 12;
  std::string out = "film.png", animation;
  std::vector<std::string> classes;
};

/// What one image looked like at every call of the network, and at the end.
struct Film {
  std::vector<Image> states, predictions;
};

/// `frames` of the calls, evenly spread from the first on, and the result.
std::vector<Image> pick(const std::vector<Image>& calls, const Image& result, std::int64_t frames) {
  std::vector<Image> picked;
  const std::int64_t last = static_cast<std::int64_t>(calls.size()) - 1, others = std::min(frames - 1, last + 1);
  for (std::int64_t i = 0; i < others; ++i) picked.push_back(calls[static_cast<std::size_t>(others > 1 ? i * last / (others - 1) : 0)]);
  picked.push_back(result);
  return picked;
}

void run(const Arguments& arguments) {
  if (arguments.count < 1) throw UsageError("-n: must be at least 1");
  if (arguments.frames < 2) throw UsageError("--frames: must be at least 2");
  LoadedModel loaded = load_for_sampling(arguments.sampling);
  GenerateRequest request = make_request(loaded, arguments.count, parse_classes(arguments.classes, loaded));
  std::vector<Film> films(request.seeds.size());
  request.on_call = [&](std::size_t index, double, const at::Tensor& state, const at::Tensor& x0) {
    films[index].states.push_back(to_image(state));
    films[index].predictions.push_back(to_image(x0));
  };
  std::vector<Image> results(request.seeds.size()), strip;
  const GenerateReport report = draw(loaded, request, [&](std::size_t index, const Image& image) { results[index] = image; });

  std::vector<std::vector<Image>> animated;  // [image][frame]
  std::size_t most_calls = 0;                // an adaptive solver calls the network more often for one image than for another
  for (const Film& film : films) most_calls = std::max(most_calls, film.states.size());
  const auto frames_of = [&](std::vector<Image> calls, const Image& result) {
    calls.resize(most_calls, result);
    return pick(calls, result, arguments.frames);
  };
  for (std::size_t i = 0; i < films.size(); ++i) {
    const std::vector<Image> states = frames_of(films[i].states, results[i]), predictions = frames_of(films[i].predictions, results[i]);
    strip.insert(strip.end(), states.begin(), states.end());
    strip.insert(strip.end(), predictions.begin(), predictions.end());
    animated.push_back(states);
  }
  write_png(arguments.out, make_grid(strip, static_cast<std::int64_t>(animated.front().size())));
  fmt::print("film: {} ({} images, NFE {}; of each the noisy state above and the image predicted from it below)\n", arguments.out, results.size(),
             report.nfe);
  if (arguments.animation.empty()) return;
  std::vector<Image> frames;
  for (std::size_t f = 0; f < animated.front().size(); ++f) {
    std::vector<Image> cells;
    for (const std::vector<Image>& of_image : animated) cells.push_back(of_image[f]);
    frames.push_back(make_grid(cells, static_cast<std::int64_t>(cells.size())));
  }
  write_file(arguments.animation, std::span<const std::byte>(encode_apng(frames, 100, 2000)));
  fmt::print("animation: {} (animated PNG, {} frames)\n", arguments.animation, frames.size());
}

}  // namespace

void add_film_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("film", "Denoising step by step: a film strip, and an animated PNG on request");
  auto arguments = std::make_shared<Arguments>();
  arguments->sampling.add_to(*command);
  command->add_option("-n", arguments->count, "Images")->capture_default_str();
  command->add_option("--frames", arguments->frames, "Frames an image, the result included")->capture_default_str();
  command->add_option("--class", arguments->classes, "Class names or numbers, separated by commas (default: every class in turn)")->delimiter(',');
  command->add_option("--out", arguments->out, "The strip: two rows an image, the noisy state and the predicted image")->capture_default_str();
  command->add_option("--animation", arguments->animation, "Animated PNG of the noisy states");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
