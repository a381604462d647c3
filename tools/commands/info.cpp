#include <torch/torch.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "attention/device.h"
#include "attention/operator.h"
#include "attention/plan.h"
#include "checkpoint/checkpoint.h"
#include "commands/commands.h"
#include "core/error.h"
#include "train/ema_profile.h"

namespace uvit {
namespace {

struct Arguments {
  std::string path, config;
  std::vector<std::string> overrides;
};

/// Bytes that one training step holds, estimated: weights, gradients and AdamW state in float32, the EMA profiles, and what a forward pass keeps for backward.
struct MemoryEstimate {
  double state = 0, activations = 0;
};

MemoryEstimate estimate_memory(const UViT& model, const Config& config) {
  const UViTOptions& o = model.options();
  const double profiles = static_cast<double>(ema_profiles(config.train).size());
  const double tokens = static_cast<double>(o.num_tokens());
  const double width = static_cast<double>(o.embed_dim);
  // a block keeps x twice, both norms, qkv, the attention output, fc1 and its GELU, and, where it does not run fused, the weights and their scores
  const std::int64_t head_dim = o.embed_dim / o.num_heads;
  const c10::DeviceType device = config.train.device == "cpu" ? c10::kCPU : c10::kCUDA;
  const bool fused = o.attention_backend == "fused" && plain_path_reason(device, at::kFloat, head_dim, head_dim).empty();
  const double weights = fused ? 0 : 3.0 * static_cast<double>(o.num_heads) * tokens * tokens;
  const double block = tokens * width * (8.0 + 2.0 * o.mlp_ratio) + weights;
  const double skips = o.skip ? tokens * width * 2.0 * static_cast<double>(o.depth / 2) : 0;
  const std::int64_t micro = config.train.micro_batch_size > 0 ? config.train.micro_batch_size : config.train.batch_size;
  return {4.0 * static_cast<double>(model.num_parameters()) * (4.0 + profiles),
          4.0 * static_cast<double>(micro) * (block * static_cast<double>(o.plan.kinds.size()) + skips)};
}

/// The optional parts of today's recipes that this network has, ", " between them.
std::string describe_switches(const UViTOptions& o) {
  std::vector<std::string> on;
  if (o.qk_norm) on.emplace_back("RMSNorm of queries and keys");
  if (o.rope) on.emplace_back("2-D axial RoPE");
  if (o.mlp != "gelu") on.push_back("MLP " + o.mlp);
  if (o.norm != "layer") on.push_back("norm " + o.norm);
  if (o.adaln_zero) on.push_back(o.label_rows > 0 ? fmt::format("adaLN-zero of time and label ({} rows)", o.label_rows) : "adaLN-zero of time");
  if (o.align_dim > 0) on.push_back(fmt::format("projector of block {} to width {}", o.align_block, o.align_dim));
  return fmt::format("{}", fmt::join(on, ", "));
}

void print_info(const UViT& model, const Config& config) {
  const UViTOptions& o = model.options();
  const std::int64_t rows = o.height / o.patch_size, columns = o.width / o.patch_size;
  fmt::print("image            {} x {} x {} (channels x height x width), patch {} -> {} x {} patches\n", o.channels, o.height, o.width, o.patch_size, rows, columns);
  fmt::print("tokens           {} = {} patches{}{}{}{}\n", o.num_tokens(), rows * columns, o.adaln_zero ? "" : " + time",
             o.label_rows > 0 && !o.adaln_zero ? fmt::format(" + label ({} rows)", o.label_rows) : "",
             o.context_tokens > 0 ? fmt::format(" + {} context of width {}", o.context_tokens, o.context_dim) : "",
             o.register_tokens > 0 ? fmt::format(" + {} registers", o.register_tokens) : "");
  fmt::print("network          embed_dim {}, depth {} ({} blocks), {} heads of {}, mlp_ratio {}, {}{}{}{}\n", o.embed_dim, o.depth, o.plan.kinds.size(), o.num_heads,
             o.embed_dim / o.num_heads, o.mlp_ratio, o.skip ? "long skips" : "no long skips", o.conv ? ", final 3x3 convolution" : "",
             o.qkv_bias ? ", qkv bias" : "", o.mlp_time_embed ? ", time MLP" : "");
  if (const std::string switches = describe_switches(o); !switches.empty()) fmt::print("switches         {}\n", switches);
  fmt::print("diffusion        schedule {}, prediction {}, label dropout {}\n", config.diffusion.schedule, config.diffusion.prediction, config.diffusion.label_dropout);
  fmt::print("CUDA             {}\n", describe_cuda());
  fmt::print("attention plan\n{}", describe_plan(o.plan, config.model, config.train.precision, config.train.device));
  fmt::print("parameters       {}\n", model.num_parameters());
  fmt::print("forward          {:.4g} GFLOP an image (multiply and add counted as two)\n", model.flops_per_image() / 1e9);
  const MemoryEstimate memory = estimate_memory(model, config);
  fmt::print("training memory  about {:.0f} MiB of weights, gradients, AdamW and EMA + {:.0f} MiB of activations (micro-batch {})\n", memory.state / 1048576,
             memory.activations / 1048576, config.train.micro_batch_size > 0 ? config.train.micro_batch_size : config.train.batch_size);
}

void run(const Arguments& arguments) {
  if (arguments.path.ends_with(".toml")) {
    const Config config = load_config(arguments.path, arguments.overrides);
    const UViT model(make_uvit_options(config));
    return print_info(model, config);
  }
  if (!arguments.overrides.empty()) throw UsageError("--set goes with a CONFIG.toml, not with a checkpoint");
  std::optional<Config> config;
  if (!arguments.config.empty()) config = load_config(arguments.config);
  const LoadedModel loaded = load_model(arguments.path, true, config);
  fmt::print("file             {}\nweights          {}, SHA-256 {}\n", loaded.file.string(), loaded.weights, loaded.weights_hash);
  if (loaded.step >= 0) fmt::print("step             {}\n", loaded.step);
  print_info(*loaded.model, loaded.config);
}

}  // namespace

void add_info_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("info", "Architecture, attention plan, parameters, FLOPs an image and memory of a checkpoint or a configuration");
  auto arguments = std::make_shared<Arguments>();
  command->add_option("PATH", arguments->path, "CONFIG.toml, run folder, step folder, .safetensors or .pth")->required();
  command->add_option("--set", arguments->overrides, "section.key=value, over what CONFIG.toml says; may be given often")->expected(1)->take_all();
  command->add_option("--config", arguments->config, "Configuration of a bare weight file");
  command->callback([arguments] { run(*arguments); });
}

}  // namespace uvit
