#include <torch/torch.h>

#include <fmt/format.h>

#include "commands/commands.h"
#include "commands/sampling_options.h"
#include "core/error.h"

namespace uvit {
namespace {

struct Arguments {
  SamplingOptions sampling;
  std::int64_t count = 9;
  std::string image, mask, out = "edit.png";
  std::optional<double> strength;
  std::vector<std::string> classes;
};

/// 1 where the mask is dark and the image is kept, [1, H, W].
at::Tensor read_mask(const std::string& path, const LoadedModel& loaded) {
  const UViTOptions& o = loaded.model->options();
  const Image mask = resize_and_center_crop(read_image(path, 1), o.height, o.width);
  return (at::tensor(at::ArrayRef<std::uint8_t>(mask.pixels)) < 128).to(at::kFloat).view({1, o.height, o.width});
}

void run(const Arguments& arguments) {
  if (arguments.count < 1) throw UsageError("-n: must be at least 1");
  LoadedModel loaded = load_for_sampling(arguments.sampling);
  GenerateRequest request = make_request(loaded, arguments.count, parse_classes(arguments.classes, loaded));
  request.image = read_as_sample(arguments.image, loaded);
  if (!arguments.mask.empty()) request.mask = read_mask(arguments.mask, loaded);
  request.strength = arguments.strength.value_or(arguments.mask.empty() ? 0.6 : 1.0);

  std::vector<Image> cells = {to_image(request.image)};
  if (request.mask.defined()) cells.push_back(to_image(at::where(request.mask != 0, request.image, at::zeros_like(request.image))));
  const std::size_t given = cells.size();
  const GenerateReport report = draw(loaded, request, [&](std::size_t, const Image& image) { cells.push_back(image); });
  write_png(arguments.out, make_grid(cells, static_cast<std::int64_t>(std::min<std::size_t>(cells.size(), 10))));
  fmt::print("{}: the {} first, then {} {}, strength {}, {}, NFE {}, guidance scale {} (w = {:g}), seeds {} to {}\n", arguments.out,
             given == 2 ? "image and what is kept of it" : "image", arguments.count, given == 2 ? "paintings" : "variations", request.strength,
             loaded.config.sample.solver, report.nfe, loaded.config.sample.guidance_scale, loaded.config.sample.guidance_scale - 1, request.seeds.front(),
             request.seeds.back());
}

}  // namespace

void add_edit_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("edit", "Variations of an image, or inpainting of what a mask leaves open");
  auto arguments = std::make_shared<Arguments>();
  arguments->sampling.add_to(*command);
  command->add_option("--image", arguments->image, "The image; scaled and cut to the model's size")->required();
  command->add_option("--mask", arguments->mask, "Image whose white part is painted anew; the dark part is kept");
  command->add_option("--strength", arguments->strength, "Share of the way to noise that sampling starts from, (0, 1] (default: 0.6; 1 with a mask)");
  command->add_option("-n", arguments->count, "Images to draw")->capture_default_str();
  command->add_option("--class", arguments->classes, "Class names or numbers, separated by commas (default: every class in turn)")->delimiter(',');
  command->add_option("--out", arguments->out, "The grid")->capture_default_str();
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
