#include <torch/torch.h>

#include <fmt/format.h>

#include "commands/commands.h"
#include "commands/sampling_options.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "data/apng.h"

namespace uvit {
namespace {

struct Arguments {
  SamplingOptions sampling;
  std::vector<std::uint64_t> seeds;
  std::vector<std::string> classes;
  std::int64_t frames = 9;
  std::string out = "interpolation.png", animation;
};

/// Frame i lies i / (frames - 1) of the way from the first seed and class to the second ones.
GenerateRequest interpolation(const Arguments& arguments, const LoadedModel& loaded) {
  const std::vector<std::int64_t> classes = parse_classes(arguments.classes, loaded);
  if (loaded.config.data.num_classes > 0 && classes.empty()) throw UsageError("--classes: name one class, or two to go between");
  GenerateRequest request = make_request(loaded, arguments.frames, {classes.begin(), classes.begin() + (classes.empty() ? 0 : 1)});
  std::vector<double> shares;
  for (std::int64_t i = 0; i < arguments.frames; ++i) shares.push_back(static_cast<double>(i) / static_cast<double>(arguments.frames - 1));
  const std::size_t n = shares.size();
  request.seeds.assign(n, arguments.seeds.empty() ? loaded.config.sample.seed : arguments.seeds[0]);
  if (arguments.seeds.size() == 2) {
    request.other_seeds.assign(n, arguments.seeds[1]);
    request.seed_share = shares;
  }
  if (classes.size() == 2) {
    request.other_labels.assign(n, classes[1]);
    request.label_share = shares;
  }
  return request;
}

void run(const Arguments& arguments) {
  if (arguments.frames < 2) throw UsageError("--frames: must be at least 2");
  if (arguments.seeds.size() > 2 || arguments.classes.size() > 2) throw UsageError("--seeds and --classes: name one, or two to go between");
  if (arguments.seeds.size() < 2 && arguments.classes.size() < 2) throw UsageError("give two --seeds, two --classes, or both");
  LoadedModel loaded = load_for_sampling(arguments.sampling);
  // Images of one seed share their row of a micro-batch: more rows would be padding.
  if (!arguments.sampling.batch_size) loaded.config.sample.batch_size = 1;
  std::vector<Image> images;
  const GenerateReport report = draw(loaded, interpolation(arguments, loaded), [&](std::size_t, const Image& image) { images.push_back(image); });
  write_png(arguments.out, make_grid(images, static_cast<std::int64_t>(images.size())));
  fmt::print("{}: {} images, {}, NFE {}\n", arguments.out, images.size(), loaded.config.sample.solver, report.nfe);
  if (arguments.animation.empty()) return;
  write_file(arguments.animation, std::span<const std::byte>(encode_apng(images, 150, 1500)));
  fmt::print("animation: {} (animated PNG)\n", arguments.animation);
}

}  // namespace

void add_interpolate_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("interpolate", "Images on the way between two seeds, two classes, or both");
  auto arguments = std::make_shared<Arguments>();
  arguments->sampling.add_to(*command);
  command->add_option("--seeds", arguments->seeds, "A,B: the initial noise goes from A's to B's on a great circle")->delimiter(',');
  command->add_option("--classes", arguments->classes, "X,Y: the prediction goes from that for X to that for Y")->delimiter(',');
  command->add_option("--frames", arguments->frames, "Images, both ends included")->capture_default_str();
  command->add_option("--out", arguments->out, "The row of images")->capture_default_str();
  command->add_option("--animation", arguments->animation, "Animated PNG");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
