#include "config/keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

#include "core/error.h"

namespace uvit {
namespace {

template <auto Section, auto Member>
ConfigField at(Config& config) {
  return &(config.*Section.*Member);
}

template <auto Member>
constexpr auto kModel = at<&Config::model, Member>;
template <auto Member>
constexpr auto kDiffusion = at<&Config::diffusion, Member>;
template <auto Member>
constexpr auto kData = at<&Config::data, Member>;
template <auto Member>
constexpr auto kOptimizer = at<&Config::optimizer, Member>;
template <auto Member>
constexpr auto kTrain = at<&Config::train, Member>;
template <auto Member>
constexpr auto kSample = at<&Config::sample, Member>;
template <auto Member>
constexpr auto kEval = at<&Config::eval, Member>;

using M = ModelConfig;
using D = DiffusionConfig;
using A = DataConfig;
using O = OptimizerConfig;
using T = TrainConfig;
using S = SampleConfig;
using E = EvalConfig;

ConfigRange any() { return {}; }
ConfigRange at_least(double low) { return {.low = low}; }
ConfigRange above(double low, double high = std::numeric_limits<double>::max()) { return {.low = low, .high = high, .above_low = true}; }
ConfigRange between(double low, double high) { return {.low = low, .high = high}; }
ConfigRange from_to_below(double low, double high) { return {.low = low, .high = high, .below_high = true}; }
ConfigRange one_of(std::vector<std::string> words) { return {.words = std::move(words)}; }

const ConfigRange kSize = between(1, 1 << 20);  // sides, widths, counts of a network: larger is a slip of the hand and would overflow products
const ConfigRange kSizeOrNone = between(0, 1 << 20);
const ConfigRange kSeed = between(0, 9223372036854774784.0);  // TOML integers have 63 bits; the largest double below
const ConfigRange kPrecision = one_of({"fp32", "bf16", "fp16"});

const std::vector<ConfigKey>& table() {
  static const std::vector<ConfigKey> keys = {
      {"model", "patch_size", kModel<&M::patch_size>, kSize, "pixels; divides both sides of the image"},
      {"model", "embed_dim", kModel<&M::embed_dim>, kSize, "width of a token"},
      {"model", "depth", kModel<&M::depth>, between(1, 10000), "in-blocks + out-blocks; an odd depth runs as depth - 1 (as the official code does)"},
      {"model", "num_heads", kModel<&M::num_heads>, kSize, "attention heads; divides embed_dim"},
      {"model", "mlp_ratio", kModel<&M::mlp_ratio>, above(0, 1000), "hidden width of the MLP = int(embed_dim * mlp_ratio)"},
      {"model", "qkv_bias", kModel<&M::qkv_bias>, any(), "biases of the query, key and value projections"},
      {"model", "mlp_time_embed", kModel<&M::mlp_time_embed>, any(), "Linear, SiLU, Linear behind the sinusoidal timestep embedding"},
      {"model", "conv", kModel<&M::conv>, any(), "3x3 convolution after un-patchify"},
      {"model", "skip", kModel<&M::skip>, any(), "long skip connections"},
      {"model", "context_dim", kModel<&M::context_dim>, kSizeOrNone, "width of context (text) tokens; 0: none. Official: clip_dim"},
      {"model", "context_tokens", kModel<&M::context_tokens>, kSizeOrNone, "number of context tokens. Official: num_clip_token"},
      {"model", "attention", kModel<&M::attention>, any(), "one kind, or one a block in running order (in.0 ... mid ... out.k)"},
      {"model", "softmax_blocks", kModel<&M::softmax_blocks>, any(),
       "blocks that stay softmax when attention is one kind: first, last, or in.1, mid, out.0; [] for none"},
      {"model", "qk_norm", kModel<&M::qk_norm>, any(), "RMSNorm of every head's queries and keys, with a learned scale (arXiv:2403.03206)"},
      {"model", "rope", kModel<&M::rope>, any(), "2-D axial rotary embedding of the patches' queries and keys (arXiv:2403.13298), beside pos_embed"},
      {"model", "mlp", kModel<&M::mlp>, one_of({"gelu", "swiglu"}), "gelu, or swiglu of 2/3 the hidden width (arXiv:2002.05202)"},
      {"model", "norm", kModel<&M::norm>, one_of({"layer", "rms"}), "layer or rms (arXiv:1910.07467)"},
      {"model", "register_tokens", kModel<&M::register_tokens>, kSizeOrNone, "learned tokens beside the others (arXiv:2309.16588)"},
      {"model", "conditioning", kModel<&M::conditioning>, one_of({"tokens", "adaln_zero"}),
       "time and label as tokens (U-ViT), or adaln_zero: scales and shifts of every block (arXiv:2212.09748)"},
      {"model", "align_dim", kModel<&M::align_dim>, kSizeOrNone,
       "width of the features that hidden patches are aligned with (REPA, arXiv:2410.06940); 0: none"},
      {"model", "align_block", kModel<&M::align_block>, kSizeOrNone, "block whose output is aligned, in running order from 0"},
      {"model", "attention_backend", kModel<&M::attention_backend>, one_of({"fused", "eager"}),
       "fused: kernels that store nothing of size L x L; eager: plain ATen operations"},

      {"diffusion", "schedule", kDiffusion<&D::schedule>, any(), "row of the schedule table"},
      {"diffusion", "prediction", kDiffusion<&D::prediction>, any(), "row of the prediction table: what the network predicts"},
      {"diffusion", "weighting", kDiffusion<&D::weighting>, any(), "row of the weighting table: weight of a sample in the loss"},
      {"diffusion", "time_sampling", kDiffusion<&D::time_sampling>, any(), "row of the table of training times; schedule: the schedule's own law"},
      {"diffusion", "time_mean", kDiffusion<&D::time_mean>, any(), "mean of the normal draw of time_sampling logit_normal and log_normal"},
      {"diffusion", "time_std", kDiffusion<&D::time_std>, above(0), "standard deviation of that draw"},
      {"diffusion", "time_shift", kDiffusion<&D::time_shift>, above(0),
       "training times t in (0, 1) become s t / (1 + (s - 1) t); 1: as drawn (arXiv:2403.03206)"},
      {"diffusion", "stratified_times", kDiffusion<&D::stratified_times>, any(), "sample i of a batch of n draws from the i-th n-th of the law"},
      {"diffusion", "sigma_data", kDiffusion<&D::sigma_data>, above(0),
       "standard deviation of the data, for EDM's preconditioning and weighting (arXiv:2206.00364)"},
      {"diffusion", "label_dropout", kDiffusion<&D::label_dropout>, from_to_below(0, 1),
       "probability that a training label becomes the null label, for classifier-free guidance"},

      {"data", "dataset", kData<&A::dataset>, any(), "row of the dataset table"},
      {"data", "path", kData<&A::path>, any(), "file or folder; empty: the default of the dataset"},
      {"data", "image_size", kData<&A::image_size>, kSize, "pixels: side or [height, width]"},
      {"data", "channels", kData<&A::channels>, between(1, 4096), "1 grey, 3 RGB, 4 RGBA"},
      {"data", "num_classes", kData<&A::num_classes>, kSizeOrNone,
       "K real classes; 0: unconditional. With label_dropout the embedding has K + 1 rows, null = K"},
      {"data", "flip", kData<&A::flip>, any(), "random horizontal flip"},
      {"data", "workers", kData<&A::workers>, between(1, 1024), "loader threads"},
      {"data", "prefetch", kData<&A::prefetch>, between(1, 1024), "batches held ready"},
      {"data", "on_error", kData<&A::on_error>, one_of({"fail", "skip"}),
       "a broken image: fail names it and stops; skip leaves it out and counts it"},
      {"data", "jpeg_scaling", kData<&A::jpeg_scaling>, any(),
       "true: colour JPEGs are decoded at 1/2, 1/4 or 1/8 of their size where that is still 1.5 times the wanted one (libjpeg's scaled DCT): faster, other pixels"},
      {"data", "limit", kData<&A::limit>, at_least(0), "use only the first images; 0: all"},
      {"data", "autoencoder", kData<&A::autoencoder>, any(), "weights of the KL autoencoder that decodes latents; empty where images are no latents"},
      {"data", "scale_factor", kData<&A::scale_factor>, above(0),
       "latents are this times a draw of the autoencoder's posterior; must be what the latent dataset says"},
      {"data", "text_encoder", kData<&A::text_encoder>, any(), "weights of the CLIP text encoder, for prompts"},
      {"data", "vocabulary", kData<&A::vocabulary>, any(), "byte-pair vocabulary of the text encoder"},

      {"optimizer", "name", kOptimizer<&O::name>, one_of({"adamw", "muon"}),
       "adamw, or muon (Jordan et al. 2024) for the matrices of the blocks and AdamW for the rest"},
      {"optimizer", "muon_lr", kOptimizer<&O::muon_lr>, at_least(0), "learning rate of muon's matrices, on the same schedule"},
      {"optimizer", "muon_momentum", kOptimizer<&O::muon_momentum>, from_to_below(0, 1), "momentum (Nesterov) of muon"},
      {"optimizer", "lr", kOptimizer<&O::lr>, at_least(0), "learning rate of AdamW"},
      {"optimizer", "betas", kOptimizer<&O::betas>, from_to_below(0, 1), "decay of the two moments"},
      {"optimizer", "eps", kOptimizer<&O::eps>, above(0), "added to the root of the second moment"},
      {"optimizer", "weight_decay", kOptimizer<&O::weight_decay>, at_least(0), "decoupled weight decay"},
      {"optimizer", "decay", kOptimizer<&O::decay>, one_of({"all", "matrices"}),
       "all (official) or matrices: leaves out norms, biases, embeddings and attention scalars"},
      {"optimizer", "warmup_steps", kOptimizer<&O::warmup_steps>, any(),
       "step i uses lr * min(i / warmup_steps, 1), so step 0 has rate 0; <= 0: constant"},
      {"optimizer", "lr_schedule", kOptimizer<&O::lr_schedule>, one_of({"constant", "cosine", "inverse_sqrt", "warmup_stable_decay"}),
       "after warm-up: constant (official), cosine (to 0 at train.steps, arXiv:1608.03983), inverse_sqrt (arXiv:2312.02696), warmup_stable_decay "
       "(arXiv:2404.06395)"},
      {"optimizer", "lr_reference_steps", kOptimizer<&O::lr_reference_steps>, at_least(1), "inverse_sqrt: lr / sqrt(max(step / this, 1))"},
      {"optimizer", "lr_decay_share", kOptimizer<&O::lr_decay_share>, above(0, 1),
       "warmup_stable_decay: the last share of train.steps, over which lr falls to 0"},
      {"optimizer", "clip_grad_norm", kOptimizer<&O::clip_grad_norm>, at_least(0), "largest global gradient norm; 0: no clipping"},

      {"train", "steps", kTrain<&T::steps>, at_least(1), "optimizer steps"},
      {"train", "batch_size", kTrain<&T::batch_size>, kSize, "global batch, in images"},
      {"train", "micro_batch_size", kTrain<&T::micro_batch_size>, kSizeOrNone,
       "images a forward pass; 0 = batch_size. Smaller accumulates gradients"},
      {"train", "seed", kTrain<&T::seed>, kSeed, "of order, noise, times, flips and initial weights"},
      {"train", "ema_decay", kTrain<&T::ema_decay>, from_to_below(0, 1), "one EMA profile a rate; the first is what sampling uses"},
      {"train", "ema_half_life", kTrain<&T::ema_half_life>, at_least(0),
       "images; one EMA profile more, of this half-life (arXiv:2206.00364); 0: none"},
      {"train", "ema_ramp_up", kTrain<&T::ema_ramp_up>, at_least(0), "its half-life is at most this times the images seen; 0: no ramp"},
      {"train", "ema_power", kTrain<&T::ema_power>, above(0, 0.288),
       "one power-function EMA profile a relative length; two, as 0.05 and 0.1, give every length afterwards: uvit ema (arXiv:2312.02696)"},
      {"train", "precision", kTrain<&T::precision>, kPrecision, "fp32 | bf16 | fp16: autocast; weights, EMA and optimizer state stay fp32"},
      {"train", "device", kTrain<&T::device>, one_of({"cpu", "cuda"}), "cpu or cuda"},
      {"train", "threads", kTrain<&T::threads>, between(0, 4096), "intra-op threads; 0: all cores"},
      {"train", "log_every", kTrain<&T::log_every>, at_least(1), "steps"},
      {"train", "eval_every", kTrain<&T::eval_every>, at_least(0), "steps between held-out losses; 0: never"},
      {"train", "eval_images", kTrain<&T::eval_images>, at_least(1), "held-out images a loss is taken over"},
      {"train", "sample_every", kTrain<&T::sample_every>, at_least(0), "steps between sample grids; 0: never"},
      {"train", "checkpoint_every", kTrain<&T::checkpoint_every>, at_least(1), "steps"},
      {"train", "keep_checkpoints", kTrain<&T::keep_checkpoints>, at_least(0), "the newest ones kept, beside the best; 0: all"},
      {"train", "init_from", kTrain<&T::init_from>, any(),
       "checkpoint whose weights training starts from; pos_embed is interpolated to another resolution"},
      {"train", "recompute_every", kTrain<&T::recompute_every>, kSizeOrNone,
       "every k-th block keeps its input alone and is computed again in backward (arXiv:1604.06174); 0: none"},
      {"train", "align_encoder", kTrain<&T::align_encoder>, any(), "TorchScript file whose features model.align_block is aligned with"},
      {"train", "align_weight", kTrain<&T::align_weight>, at_least(0), "weight of that loss"},
      {"train", "align_size", kTrain<&T::align_size>, kSize, "pixels; side to which images are resized for the encoder"},
      {"train", "max_bad_steps", kTrain<&T::max_bad_steps>, at_least(1),
       "steps in a row without finite loss and gradients, after which training goes back to a checkpoint"},
      {"train", "max_rollbacks", kTrain<&T::max_rollbacks>, at_least(0), "times it goes back before it stops with a diagnosis"},
      {"train", "reproducible_reduction", kTrain<&T::reproducible_reduction>, any(),
       "gradients are summed along one fixed tree over micro-batches: equal bits for 1, 2, 4, ... processes"},
      {"train", "shard_optimizer", kTrain<&T::shard_optimizer>, any(), "every process keeps its share of the optimizer's state (ZeRO-1)"},
      {"train", "hash_every", kTrain<&T::hash_every>, at_least(1), "steps between comparisons of the processes' parameters"},
      {"train", "process_timeout_s", kTrain<&T::process_timeout_s>, between(0.001, 1e6), "seconds that a process waits for another one"},
      {"train", "histogram_every", kTrain<&T::histogram_every>, at_least(0),
       "steps between histograms of weights and gradients in the event file; 0: never"},

      {"sample", "solver", kSample<&S::solver>, any(), "row of the solver table"},
      {"sample", "num_steps", kSample<&S::num_steps>, kSize, "steps of the solver"},
      {"sample", "guidance_scale", kSample<&S::guidance_scale>, at_least(0), "s in u + s (c - u); 1 is off. The U-ViT papers' w is s - 1"},
      {"sample", "batch_size", kSample<&S::batch_size>, kSize, "images a network call; the last micro-batch is padded to it"},
      {"sample", "seed", kSample<&S::seed>, kSeed, "image i has seed + i"},
      {"sample", "precision", kSample<&S::precision>, kPrecision, "fp32 | bf16 | fp16: autocast"},
      {"sample", "ema", kSample<&S::ema>, any(), "sample from the EMA weights"},
      {"sample", "grid", kSample<&S::grid>, between(1, 1000), "rows, columns of a grid"},
      {"sample", "time_grid", kSample<&S::time_grid>, any(), "row of the table of time grids; solver: the solver's own"},
      {"sample", "order", kSample<&S::order>, between(0, 3), "order of a solver that comes in several; 0: its own"},
      {"sample", "t_end", kSample<&S::t_end>, at_least(0), "time at which sampling ends; 0: the schedule's"},
      {"sample", "time_shift", kSample<&S::time_shift>, above(0), "times t in (0, 1) of the uniform grids become s t / (1 + (s - 1) t)"},
      {"sample", "eta", kSample<&S::eta>, between(0, 1), "noise of ddim: 0 none, 1 as ddpm (arXiv:2010.02502)"},
      {"sample", "churn", kSample<&S::churn>, at_least(0), "S_churn of edm_heun (arXiv:2206.00364)"},
      {"sample", "churn_range", kSample<&S::churn_range>, at_least(0), "S_min, S_max: the noise levels sigma / alpha that are churned"},
      {"sample", "churn_noise", kSample<&S::churn_noise>, above(0), "S_noise: standard deviation of the churned noise"},
      {"sample", "tolerance", kSample<&S::tolerance>, above(0), "relative tolerance of the adaptive solver"},
      {"sample", "thresholding", kSample<&S::thresholding>, between(0, 1),
       "quantile of dynamic thresholding of x0, 0.995 officially (arXiv:2205.11487); 0: off"},
      {"sample", "guidance_interval", kSample<&S::guidance_interval>, at_least(0),
       "[low, high] of sigma / alpha between which guidance acts (arXiv:2404.07724); []: everywhere"},
      {"sample", "guidance_rescale", kSample<&S::guidance_rescale>, between(0, 1),
       "share by which the guided x0 takes back the standard deviation of the conditional one (arXiv:2305.08891)"},
      {"sample", "guidance_channels", kSample<&S::guidance_channels>, at_least(0), "guide the first channels only (DiT's numbers: 3 of 4); 0: all"},
      {"sample", "guidance_one_batch", kSample<&S::guidance_one_batch>, any(),
       "conditional and unconditional rows in one network call of 2 batch_size images; false: two calls, half the memory"},

      {"eval", "metric", kEval<&E::metric>, any(), "row of the feature network table"},
      {"eval", "num_images", kEval<&E::num_images>, at_least(1), "generated images that a score is taken over"},
      {"eval", "every_steps", kEval<&E::every_steps>, at_least(0), "training steps between scores, each with a checkpoint; 0: none"},
      {"eval", "n", kEval<&E::n>, at_least(2), "images drawn for each of them"},
      {"eval", "reference", kEval<&E::reference>, any(), "what they are compared with, as uvit fid takes it; empty: the training data"},
  };
  return keys;
}

/// A TOML basic string.
std::string format_value(const std::string& text) {
  std::string quoted = "\"";
  for (char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      quoted += std::string("\\") + c;
    else if (c == '\n')
      quoted += "\\n";
    else if (c == '\t')
      quoted += "\\t";
    else if (code < 0x20 || code == 0x7f)
      quoted += fmt::format("\\u{:04X}", code);
    else
      quoted += c;
  }
  return quoted + "\"";
}
std::string format_value(bool value) { return value ? "true" : "false"; }
std::string format_value(std::int64_t value) { return fmt::format("{}", value); }
std::string format_value(std::uint64_t value) { return fmt::format("{}", value); }
std::string format_value(double value) {  // the shortest text that reads back to the same number, and that is seen to be no integer
  const std::string text = fmt::format("{}", value);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

template <class T>
constexpr bool kIsList = !std::is_arithmetic_v<T> && !std::is_same_v<T, std::string>;

/// Calls `visit` with the value, or with each element of a list.
template <class T, class Visit>
void for_each_element(const T& value, Visit&& visit) {
  if constexpr (kIsList<T>)
    for (const auto& element : value) visit(element);
  else
    visit(value);
}

template <class T>
std::string format_whole(const T& value) {
  std::vector<std::string> parts;
  for_each_element(value, [&](const auto& element) { parts.push_back(format_value(element)); });
  return kIsList<T> ? fmt::format("[{}]", fmt::join(parts, ", ")) : parts.front();
}

std::string describe(const ConfigRange& range) {
  if (!range.words.empty()) return fmt::format("one of {}", fmt::join(range.words, ", "));
  const double largest = std::numeric_limits<double>::max();
  const std::string low = fmt::format("{} {}", range.above_low ? ">" : ">=", range.low),
                    high = fmt::format("{} {}", range.below_high ? "<" : "<=", range.high);
  if (range.low == -largest && range.high == largest) return "a finite number";
  return range.high == largest ? low : range.low == -largest ? high : fmt::format("{} and {}", low, high);
}

bool in_range(double value, const ConfigRange& range) {
  return (range.above_low ? value > range.low : value >= range.low) && (range.below_high ? value < range.high : value <= range.high);
}
bool in_range(const std::string& value, const ConfigRange& range) {
  return range.words.empty() || std::find(range.words.begin(), range.words.end(), value) != range.words.end();
}
bool in_range(bool, const ConfigRange&) { return true; }
bool in_range(std::int64_t value, const ConfigRange& range) { return in_range(static_cast<double>(value), range); }
bool in_range(std::uint64_t value, const ConfigRange& range) { return in_range(static_cast<double>(value), range); }

/// The field is only read; the table binds mutable fields because reading a file writes them.
ConfigField field_of(const ConfigKey& key, const Config& config) { return key.field(const_cast<Config&>(config)); }

}  // namespace

std::string ConfigKey::full_name() const { return fmt::format("{}.{}", section, name); }

std::span<const ConfigKey> config_keys() { return table(); }

const ConfigKey* find_config_key(std::string_view section, std::string_view name) {
  for (const ConfigKey& key : table())
    if (key.section == section && key.name == name) return &key;
  return nullptr;
}

std::string format_field(const ConfigKey& key, const Config& config) {
  return std::visit([](const auto* value) { return format_whole(*value); }, field_of(key, config));
}

void check_range(const ConfigKey& key, const Config& config) {
  const auto check = [&](const auto& element) {
    if (!in_range(element, key.range))
      throw Error(fmt::format("{} = {}: must be {}", key.full_name(), format_field(key, config), describe(key.range)));
  };
  std::visit([&](const auto* value) { for_each_element(*value, check); }, field_of(key, config));
}

}  // namespace uvit
