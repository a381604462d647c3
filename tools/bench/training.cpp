// Peak memory and images a second of a training step with each switch that saves either: one process a row, so that peaks do not mix.
#include <torch/torch.h>

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "train/adamw.h"
#include "train/gradients.h"
#include "train/processes.h"
#include "train/training_state.h"

namespace {

using namespace uvit;
using Json = nlohmann::json;

struct Row {
  std::string name;
  void (*change)(Config&);
};

constexpr std::int64_t kMicroBatch = 4;

void plain(Config& c) { c.model.attention_backend = "eager"; }
void fused(Config&) {}
void bf16(Config& c) { c.train.precision = "bf16"; }
void accumulate(Config& c) { c.train.micro_batch_size = kMicroBatch; }
void recompute_all(Config& c) { c.train.recompute_every = 1; }
void recompute_half(Config& c) { c.train.recompute_every = 2; }
void everything(Config& c) {
  bf16(c);
  accumulate(c);
  recompute_all(c);
}

const std::vector<Row> kRows = {{"plain: eager attention, fp32, the batch at once", plain}, {"fused attention", fused},
                                {"fused, bf16", bf16},
                                {"fused, every 2nd block recomputed", recompute_half},
                                {"fused, every block recomputed", recompute_all},
                                {"fused, micro-batches of 4", accumulate},
                                {"fused, bf16, recomputed, micro-batches of 4", everything}};

struct Arguments {
  std::string shape = "S/2", kind = "softmax";
  std::int64_t batch = 32, steps = 2, threads = 0, row = -1;
};

/// U-ViT-S/2 of CIFAR-10 and U-ViT-L/2 of ImageNet 256's latents (arXiv:2209.12152, table 5).
Config config_of(const Arguments& a) {
  Config c;
  c.data.image_size = {32};
  c.data.num_classes = 1000;
  c.diffusion.label_dropout = 0.1;
  c.data.channels = 4;
  if (a.shape == "S/2") {
    c.model.depth = 12;
  } else if (a.shape == "L/2") {
    c.model.embed_dim = 1024;
    c.model.depth = 20;
    c.model.num_heads = 16;
    c.model.conv = false;
  } else {
    throw Error(fmt::format("no shape '{}': there are S/2 and L/2", a.shape));
  }
  c.model.attention = {a.kind};
  c.train.batch_size = a.batch;
  c.train.threads = a.threads;
  return c;
}

TrainingBatch random_batch(const Config& c) {
  TrainingBatch batch;
  const std::int64_t n = c.train.batch_size;
  at::manual_seed(1);
  batch.x0 = at::randn({n, c.data.channels, c.data.height(), c.data.width()});
  batch.eps = at::randn(batch.x0.sizes());
  batch.labels = at::randint(c.data.num_classes, {n}, at::kLong);
  for (std::int64_t i = 0; i < n; ++i) batch.t.push_back((static_cast<double>(i) + 0.5) / static_cast<double>(n));
  return batch;
}

/// The largest memory that this process has held, MiB.
double peak_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;
  throw Error("/proc/self/status has no VmHWM");
}

/// Whole steps: forward, backward, AdamW and EMA. The first is not timed.
void measure(const Arguments& a) {
  Config config = config_of(a);
  kRows.at(static_cast<std::size_t>(a.row)).change(config);
  ProcessGroup alone;
  set_threads_of_process(config.train, alone.launch());
  TrainingState state(config, at::kCPU, alone);
  const auto schedule = make_schedule(config.diffusion);
  const auto sum = make_gradient_sum(alone, state.parameters(), false, micro_batches_of(config.train, 1));
  const TrainingBatch batch = random_batch(config);
  std::vector<double> seconds;
  for (std::int64_t step = 0; step <= a.steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    state.model().zero_grad();
    const BatchLosses losses = add_gradients(state.model(), batch, config, *schedule, state.loss_scale(), *sum);
    state.apply_gradients(1e-5, losses.diffusion, true, false);
    if (step > 0) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  fmt::print("{}\n", Json{{"peak_mib", peak_mib()}, {"images_per_second", static_cast<double>(a.batch) / seconds[seconds.size() / 2]}}.dump());
}

Json run_row(const std::string& program, const Arguments& a, std::size_t row) {
  const std::string command = fmt::format("'{}' --shape {} --kind {} --batch {} --steps {} --threads {} --row {} 2>/dev/null", program, a.shape, a.kind,
                                          a.batch, a.steps, a.threads, row);
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (!pipe) throw Error("cannot start a process");
  std::string output;
  for (int letter = std::fgetc(pipe); letter != EOF; letter = std::fgetc(pipe)) output += static_cast<char>(letter);
  return ::pclose(pipe) == 0 ? Json::parse(output) : Json();
}

void table(const std::string& program, const Arguments& a) {
  fmt::print("U-ViT-{}, {} attention, batch {}, median of {} steps\n| switches | peak memory, MiB | of plain | images/s |\n|---|---|---|---|\n", a.shape, a.kind,
             a.batch, a.steps);
  double of_plain = 0;
  for (std::size_t row = 0; row < kRows.size(); ++row) {
    const Json found = run_row(program, a, row);
    if (found.is_null()) {
      fmt::print("| {} | out of memory | | |\n", kRows[row].name);
      continue;
    }
    const double peak = found.at("peak_mib");
    if (row == 0) of_plain = peak;
    fmt::print("| {} | {:.0f} | {} | {:.2f} |\n", kRows[row].name, peak, of_plain > 0 ? fmt::format("{:.0f} %", 100 * peak / of_plain) : "",
               found.at("images_per_second").get<double>());
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Peak memory and images/s of a training step with each memory and speed switch, on the CPU");
  Arguments arguments;
  app.add_option("--shape", arguments.shape, "S/2 or L/2: tokens of 32 x 32 x 4 images");
  app.add_option("--kind", arguments.kind, "Attention kind of the blocks");
  app.add_option("--batch", arguments.batch, "Images a step, a multiple of 4")->check(CLI::PositiveNumber);
  app.add_option("--steps", arguments.steps, "Timed steps")->check(CLI::PositiveNumber);
  app.add_option("--threads", arguments.threads, "Intra-op threads; 0: all cores");
  app.add_option("--row", arguments.row, "Measure this row alone and print it as JSON")->check(CLI::Range(std::size_t{0}, kRows.size() - 1));
  CLI11_PARSE(app, argc, argv);
  try {
    if (arguments.row >= 0) {
      spdlog::set_level(spdlog::level::off);
      measure(arguments);
    } else {
      table(argv[0], arguments);
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_training: {}\n", error.what());
    return 1;
  }
}
