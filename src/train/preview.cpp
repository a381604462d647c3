#include <torch/torch.h>

#include <fmt/format.h>

#include "checkpoint/autoencoder_file.h"
#include "core/atomic_file.h"
#include "data/image_io.h"
#include "samplers/generate.h"
#include "train/evaluation.h"
#include "train/interrupt.h"
#include "train/preview.h"

namespace uvit {

namespace fs = std::filesystem;

Image draw_preview(UViT& model, const Config& config, const Dataset& dataset, ProcessGroup& processes) {
  const torch::NoGradGuard no_grad;
  const auto [rows, columns] = config.sample.grid;
  GenerateRequest request;
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    request.seeds.push_back(config.sample.seed + static_cast<std::uint64_t>(i));
    if (config.data.num_classes > 0) request.labels.push_back(i % config.data.num_classes);
  }
  if (config.model.context_dim > 0) {
    std::vector<std::int64_t> positions;
    for (std::int64_t i = 0; i < rows * columns; ++i) positions.push_back(i * dataset.size() / (rows * columns));
    request.contexts = read_contexts(dataset, positions);
    request.empty_context = torch::empty({config.model.context_tokens, config.model.context_dim}, torch::kFloat32);
    dataset.read_empty_context({request.empty_context.data_ptr<float>(), static_cast<std::size_t>(request.empty_context.numel())});
  }
  if (dataset.latent())
    request.decode = make_latent_decoder(config.data.autoencoder, config.data.scale_factor, model.parameters().front().device());
  request.processes = &processes;
  request.stop = interrupt_requested;
  std::vector<Image> images(request.seeds.size());
  const GenerateReport report = generate(model, config, request, [&](std::size_t index, const at::Tensor& sample) {
    const at::Tensor values = sample.to(torch::kCPU, torch::kFloat32).contiguous();
    const std::span<const float> pixels(values.const_data_ptr<float>(), static_cast<std::size_t>(values.numel()));
    images[index] = {values.size(0), values.size(1), values.size(2), quantise(pixels)};
  });
  if (report.stopped) throw Interrupted();
  return processes.is_first() ? make_grid(images, columns) : Image();
}

fs::path write_preview(const Image& grid, const fs::path& run, std::int64_t step, const std::string& profile, EventFile& events) {
  const std::vector<std::byte> png = encode_png(grid);
  const fs::path path = run / "samples" / fmt::format("step-{}.png", step);
  write_file(path, std::span<const std::byte>(png));
  events.add_image("samples/" + profile, step, png, static_cast<int>(grid.height), static_cast<int>(grid.width), static_cast<int>(grid.channels));
  return path;
}

}  // namespace uvit
