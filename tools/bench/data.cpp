// One side of the data benchmark (data.py runs it beside torchvision): reads images through the training's loader and prints one JSON line.
//   bench_data folder DIR     the dataset row `folder`; bench_data shards DIR likewise
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>

#include "core/error.h"
#include "data/dataset.h"
#include "data/loader.h"

namespace {

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec); };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void run(const uvit::DataConfig& data, std::int64_t batches, uvit::LoaderOptions options) {
  const auto dataset = uvit::open_dataset(data, uvit::Split::train);
  uvit::DataLoader loader(*dataset, options);
  for (std::int64_t i = 0; i < options.prefetch; ++i) loader.next();  // warm up
  const auto start = std::chrono::steady_clock::now();
  const double cpu = cpu_seconds();
  double sum = 0;
  for (std::int64_t i = 0; i < batches; ++i) sum += loader.next().images[0];
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const auto images = static_cast<double>(batches * options.batch_size);
  fmt::print("{{\"images_per_second\": {:.1f}, \"cpu_ms_per_image\": {:.4f}, \"checked\": {}}}\n", images / seconds, 1000 * (cpu_seconds() - cpu) / images, sum);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Images a second through the data loader.");
  uvit::DataConfig data;
  uvit::LoaderOptions options;
  std::int64_t batches = 40;
  data.image_size = {64};
  data.channels = 3;
  options.batch_size = 64;
  options.workers = 2;
  options.flip = true;
  app.add_option("DATASET", data.dataset, "folder or shards")->required();
  app.add_option("PATH", data.path)->required();
  app.add_option("--image-size", data.image_size.front())->capture_default_str();
  app.add_flag("--jpeg-scaling", data.jpeg_scaling);
  app.add_option("--batch-size", options.batch_size)->capture_default_str();
  app.add_option("--batches", batches)->capture_default_str();
  app.add_option("--workers", options.workers)->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    run(data, batches, options);
  } catch (const uvit::Error& error) {
    fmt::print(stderr, "bench_data: {}\n", error.what());
    return 1;
  }
  return 0;
}
