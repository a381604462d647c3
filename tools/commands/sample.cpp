#include <torch/torch.h>

#include <fmt/format.h>

#include "commands/commands.h"
#include "commands/processes.h"
#include "commands/sampling_options.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "io/npz.h"

namespace uvit {
namespace {

struct Arguments {
  SamplingOptions sampling;
  std::int64_t count = 0;
  std::string grid, out = "samples.png", images, npz;
  std::vector<std::string> classes;
};

/// "5x10" -> {5, 10}
std::array<std::int64_t, 2> parse_grid(const std::string& text) {
  long long rows = 0, columns = 0;
  int used = 0;
  if (std::sscanf(text.c_str(), "%lldx%lld%n", &rows, &columns, &used) != 2 || static_cast<std::size_t>(used) != text.size() || rows < 1 || columns < 1 ||
      rows > 1000 || columns > 1000)
    throw UsageError(fmt::format("--grid {}: not ROWSxCOLUMNS, for instance 5x10", text));
  return {rows, columns};
}

/// Images in the layout of the ADM suite: arr_0 uint8 [N, H, W, C]; with classes arr_1 int64 [N].
class NpzImages {
 public:
  void add(std::size_t index, std::size_t count, const Image& image) {
    if (pixels_.shape.empty()) {
      pixels_ = {DType::u8, {static_cast<std::int64_t>(count), image.height, image.width, image.channels}, {}};
      pixels_.data.resize(count * image.pixels.size());
    }
    auto* out = pixels_.as<std::uint8_t>() + index * image.pixels.size();
    const std::int64_t area = image.height * image.width;
    for (std::int64_t p = 0; p < area; ++p)
      for (std::int64_t c = 0; c < image.channels; ++c) *out++ = image.pixels[static_cast<std::size_t>(c * area + p)];
  }
  void write(const std::string& path, const std::vector<std::int64_t>& labels) {
    TensorFile file;
    file.tensors.emplace_back("arr_0", std::move(pixels_));
    if (!labels.empty()) {
      HostTensor tensor{DType::i64, {static_cast<std::int64_t>(labels.size())}, {}};
      const auto* bytes = reinterpret_cast<const std::byte*>(labels.data());
      tensor.data.assign(bytes, bytes + labels.size() * sizeof(std::int64_t));
      file.tensors.emplace_back("arr_1", std::move(tensor));
    }
    write_npz(path, file);
  }

 private:
  HostTensor pixels_;
};

void run(const Arguments& arguments) {
  std::array<std::int64_t, 2> grid{};
  if (!arguments.grid.empty()) grid = parse_grid(arguments.grid);
  if (arguments.count < 0) throw UsageError("-n: must be at least 1");
  const Launch launch = launch_or_spawn(arguments.sampling.processes);
  LoadedModel loaded = load_for_sampling(arguments.sampling);
  auto [rows, columns] = arguments.grid.empty() ? loaded.config.sample.grid : grid;
  const auto prompts = static_cast<std::int64_t>(read_prompts(arguments.sampling).size());
  if (prompts > 0 && arguments.grid.empty()) rows = prompts;  // one row a prompt
  const std::int64_t count = arguments.count > 0 ? arguments.count : rows * columns;
  GenerateRequest request = make_request(loaded, count, parse_classes(arguments.classes, loaded));
  add_prompts(arguments.sampling, loaded, request);
  const std::unique_ptr<ProcessGroup> processes = join_processes(launch, loaded.config.train);
  request.processes = processes.get();
  if (!processes->is_first()) {
    draw(loaded, request, {});
    return;
  }
  if (!arguments.images.empty()) make_directories(arguments.images);

  std::vector<Image> shown;
  NpzImages npz;
  const GenerateReport report = draw(loaded, request, [&](std::size_t index, const Image& image) {
    if (static_cast<std::int64_t>(shown.size()) < rows * columns) shown.push_back(image);
    if (!arguments.npz.empty()) npz.add(index, request.seeds.size(), image);
    if (arguments.images.empty()) return;
    const std::string label = request.labels.empty() ? "" : fmt::format("-class-{}", request.labels[index]);
    write_png(std::filesystem::path(arguments.images) / fmt::format("seed-{:06}{}.png", request.seeds[index], label), image);
  });
  write_png(arguments.out, make_grid(shown, columns));
  if (!arguments.npz.empty()) npz.write(arguments.npz, request.labels);

  fmt::print("{} images in {:.1f} s: {}, {} steps, NFE {}, guidance scale {} (w = {:g}), weights {}, seeds {} to {}\n", count, report.seconds,
             loaded.config.sample.solver, loaded.config.sample.num_steps, report.nfe, loaded.config.sample.guidance_scale,
             loaded.config.sample.guidance_scale - 1, loaded.weights, request.seeds.front(), request.seeds.back());
  fmt::print("grid: {}\n", arguments.out);
  if (!arguments.images.empty()) fmt::print("images: {}\n", arguments.images);
  if (!arguments.npz.empty()) fmt::print("npz: {}\n", arguments.npz);
}

}  // namespace

void add_sample_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("sample", "Draw images from a checkpoint: a PNG grid, and single images on request");
  auto arguments = std::make_shared<Arguments>();
  arguments->sampling.add_to(*command);
  arguments->sampling.add_processes_to(*command);
  command->add_option("-n", arguments->count, "Number of images (default: rows x columns of the grid)");
  command->add_option("--grid", arguments->grid, "ROWSxCOLUMNS of the grid (default: sample.grid of the run)");
  command->add_option("--class", arguments->classes, "Class names or numbers, separated by commas; image i gets the i-th in turn (default: every class in turn)")
      ->delimiter(',');
  command->add_option("--out", arguments->out, "The grid")->capture_default_str();
  command->add_option("--images", arguments->images, "Folder for single PNG images");
  command->add_option("--npz", arguments->npz, "File for all images: arr_0 uint8 [N, H, W, C], arr_1 labels");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
