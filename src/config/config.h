#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace uvit {

// One plain struct a section of the TOML file, defaults beside the fields. Keys are bound to fields in keys.cpp and nowhere else.

struct ModelConfig {
  std::int64_t patch_size = 2;       ///< pixels; divides both sides of the image
  std::int64_t embed_dim = 512;      ///< width of a token
  std::int64_t depth = 12;           ///< in-blocks + out-blocks; an odd depth runs as depth - 1 (as the official code does)
  std::int64_t num_heads = 8;
  double mlp_ratio = 4.0;            ///< hidden width of the MLP = int(embed_dim * mlp_ratio)
  bool qkv_bias = false;
  bool mlp_time_embed = false;       ///< Linear, SiLU, Linear behind the sinusoidal timestep embedding
  bool conv = true;                  ///< 3x3 convolution after un-patchify
  bool skip = true;                  ///< long skip connections
  std::int64_t context_dim = 0;      ///< width of context (text) tokens; 0: none. Official: clip_dim
  std::int64_t context_tokens = 0;   ///< number of context tokens. Official: num_clip_token
  std::vector<std::string> attention = {"softmax"};                  ///< one kind, or one a block in running order (in.0 ... mid ... out.k)
  std::vector<std::string> softmax_blocks = {"first", "last"};       ///< blocks that stay softmax when `attention` is one kind: "first", "last", or "in.1", "mid", "out.0"; [] for none
  bool qk_norm = false;              ///< RMSNorm of every head's queries and keys, with a learned scale (arXiv:2403.03206)
  bool rope = false;                 ///< 2-D axial rotary embedding of the patches' queries and keys (arXiv:2403.13298), beside pos_embed
  std::string mlp = "gelu";          ///< "gelu", or "swiglu" of hidden width 2/3 (arXiv:2002.05202)
  std::string norm = "layer";        ///< "layer" or "rms" (arXiv:1910.07467)
  std::int64_t register_tokens = 0;  ///< learned tokens beside the others (arXiv:2309.16588)
  std::string conditioning = "tokens";  ///< time and label as "tokens" (U-ViT), or "adaln_zero" (arXiv:2212.09748)
  std::int64_t align_dim = 0;        ///< width of the features that hidden patches are aligned with (REPA, arXiv:2410.06940); 0: none
  std::int64_t align_block = 0;      ///< block whose output is aligned, in running order from 0
  std::string attention_backend = "fused";                           ///< "fused": kernels that store nothing of size L x L; "eager": plain ATen operations

  bool operator==(const ModelConfig&) const = default;
};

struct DiffusionConfig {
  std::string schedule = "vp_linear";     ///< row of the schedule table
  std::string prediction = "eps";         ///< row of the prediction table: what the network predicts
  std::string weighting = "simple";       ///< row of the weighting table: weight of a sample in the loss
  std::string time_sampling = "schedule"; ///< row of the table of training times; "schedule": the schedule's own law
  double time_mean = 0.0, time_std = 1.0; ///< of the normal draw of time_sampling "logit_normal" and "log_normal"
  double time_shift = 1.0;                ///< training times t in (0, 1) become s t / (1 + (s - 1) t); 1: as drawn
  bool stratified_times = false;          ///< sample i of a batch of n draws from the i-th n-th of the law
  double sigma_data = 0.5;                ///< standard deviation of the data, for EDM's preconditioning and weighting
  double label_dropout = 0.0;             ///< probability that a training label becomes the null label, for classifier-free guidance

  bool operator==(const DiffusionConfig&) const = default;
};

struct DataConfig {
  std::string dataset = "fashion_mnist";  ///< row of the dataset table
  std::string path;                       ///< file or folder; "" = the default of the dataset
  std::vector<std::int64_t> image_size = {28};  ///< pixels: [side] or [height, width]
  std::int64_t channels = 1;              ///< 1 grey, 3 RGB, 4 RGBA
  std::int64_t num_classes = 0;           ///< K real classes; 0: unconditional. With label_dropout the embedding has K + 1 rows, null = K
  bool flip = false;                      ///< random horizontal flip
  std::int64_t workers = 1;               ///< loader threads
  std::int64_t prefetch = 4;              ///< batches held ready
  std::string on_error = "fail";          ///< a broken image: "fail" names it and stops; "skip" leaves it out and counts it
  bool jpeg_scaling = false;              ///< decode large JPEGs at 1/2, 1/4 or 1/8 of their size: faster, slightly other pixels
  std::int64_t limit = 0;                 ///< use only the first images; 0: all
  std::string autoencoder;                ///< weights of the KL autoencoder that decodes latents; "" where images are no latents
  double scale_factor = 0.18215;          ///< latents are this times a draw of the autoencoder's posterior; must be what the latent dataset says
  std::string text_encoder;               ///< weights of the CLIP text encoder, for prompts
  std::string vocabulary;                 ///< byte-pair vocabulary of the text encoder

  std::int64_t height() const { return image_size.front(); }
  std::int64_t width() const { return image_size.back(); }

  bool operator==(const DataConfig&) const = default;
};

struct OptimizerConfig {
  std::string name = "adamw";             ///< "adamw", or "muon": for the matrices of the blocks, AdamW for the rest
  double muon_lr = 0.02;                  ///< learning rate of muon's matrices, on the same schedule
  double muon_momentum = 0.95;
  double lr = 2e-4;
  std::array<double, 2> betas = {0.99, 0.999};
  double eps = 1e-8;
  double weight_decay = 0.03;
  std::string decay = "all";              ///< "all" (official) or "matrices": leaves out norms, biases, embeddings and attention scalars
  std::int64_t warmup_steps = 2500;       ///< step i uses lr * min(i / warmup_steps, 1), so step 0 has rate 0; <= 0: constant
  std::string lr_schedule = "constant";   ///< after warm-up: "constant" (official), "cosine", "inverse_sqrt" or "warmup_stable_decay"
  std::int64_t lr_reference_steps = 70000;  ///< inverse_sqrt: lr / sqrt(max(step / this, 1))
  double lr_decay_share = 0.2;            ///< warmup_stable_decay: the last share of train.steps, over which lr falls to 0
  double clip_grad_norm = 0.0;            ///< largest global gradient norm; 0: no clipping

  bool operator==(const OptimizerConfig&) const = default;
};

struct TrainConfig {
  std::int64_t steps = 500000;            ///< optimizer steps
  std::int64_t batch_size = 128;          ///< global batch, in images
  std::int64_t micro_batch_size = 0;      ///< images a forward pass; 0 = batch_size. Smaller accumulates gradients
  std::uint64_t seed = 0;
  std::vector<double> ema_decay = {0.9999};  ///< one EMA profile a rate; the first is what sampling uses
  double ema_half_life = 0.0;             ///< images; one EMA profile more, of this half-life; 0: none
  double ema_ramp_up = 0.05;              ///< its half-life is at most this times the images seen; 0: no ramp
  std::vector<double> ema_power;          ///< one power-function EMA profile a relative length; two, as 0.05 and 0.1, give every length afterwards
  std::string precision = "fp32";         ///< fp32 | bf16 | fp16: autocast; weights, EMA and optimizer state stay fp32
  std::string device = "cpu";             ///< "cpu" or "cuda"
  std::int64_t threads = 0;               ///< intra-op threads; 0: all cores
  std::int64_t log_every = 50;            ///< steps
  std::int64_t eval_every = 2500;         ///< steps between held-out losses; 0: never
  std::int64_t eval_images = 512;         ///< held-out images a loss is taken over
  std::int64_t sample_every = 0;          ///< steps between sample grids; 0: never
  std::int64_t checkpoint_every = 2500;   ///< steps
  std::int64_t keep_checkpoints = 3;      ///< the newest ones kept, beside the best; 0: all
  std::string init_from;                  ///< checkpoint whose weights training starts from; pos_embed is interpolated to another resolution
  std::int64_t recompute_every = 0;       ///< every k-th block keeps its input alone and is computed again in backward; 0: none
  std::string align_encoder;              ///< TorchScript file whose features model.align_block is aligned with
  double align_weight = 0.5;              ///< weight of that loss
  std::int64_t align_size = 224;          ///< pixels; side to which images are resized for the encoder
  std::int64_t max_bad_steps = 10;        ///< steps in a row without finite loss and gradients, after which training goes back to a checkpoint
  std::int64_t max_rollbacks = 2;         ///< times it goes back before it stops with a diagnosis
  bool reproducible_reduction = false;    ///< gradients are summed along one fixed tree over micro-batches: equal bits for 1, 2, 4, ... processes
  bool shard_optimizer = false;           ///< every process keeps its share of the optimizer's state (ZeRO-1)
  std::int64_t hash_every = 1000;         ///< steps between comparisons of the processes' parameters
  double process_timeout_s = 600.0;       ///< seconds that a process waits for another one
  std::int64_t histogram_every = 0;       ///< steps between histograms of weights and gradients in the event file; 0: never

  bool operator==(const TrainConfig&) const = default;
};

struct SampleConfig {
  std::string solver = "dpm_solver_pp_2m";  ///< row of the solver table
  std::int64_t num_steps = 50;
  double guidance_scale = 1.0;            ///< s in u + s (c - u); 1 is off. The U-ViT papers' w is s - 1
  std::int64_t batch_size = 50;           ///< images a network call; the last micro-batch is padded to it
  std::uint64_t seed = 0;                 ///< image i has seed + i
  std::string precision = "fp32";
  bool ema = true;
  std::array<std::int64_t, 2> grid = {5, 10};  ///< rows, columns of a grid
  std::string time_grid = "solver";       ///< row of the table of time grids; "solver": the solver's own
  std::int64_t order = 0;                 ///< order of a solver that comes in several; 0: its own
  double t_end = 0.0;                     ///< time at which sampling ends; 0: the schedule's
  double time_shift = 1.0;                ///< times t in (0, 1) of the uniform grids become s t / (1 + (s - 1) t)
  double eta = 0.0;                       ///< noise of ddim: 0 none, 1 as ddpm
  double churn = 0.0;                     ///< S_churn of edm_heun
  std::array<double, 2> churn_range = {0.0, 1e30};  ///< S_min, S_max
  double churn_noise = 1.0;               ///< S_noise
  double tolerance = 0.05;                ///< relative tolerance of the adaptive solver
  double thresholding = 0.0;              ///< quantile of dynamic thresholding of x0 (0.995 officially); 0: off
  std::vector<double> guidance_interval;  ///< [low, high] of sigma / alpha between which guidance acts; []: everywhere
  double guidance_rescale = 0.0;          ///< share by which guided x0 takes back the standard deviation of the conditional one
  std::int64_t guidance_channels = 0;     ///< guide the first channels only (DiT: 3 of 4); 0: all
  bool guidance_one_batch = true;         ///< conditional and unconditional rows in one network call of 2 batch_size images

  bool operator==(const SampleConfig&) const = default;
};

struct EvalConfig {
  std::string metric = "fmnist-cnn";      ///< row of the feature network table
  std::int64_t num_images = 2000;
  std::int64_t every_steps = 0;           ///< training steps between scores, each with a checkpoint; 0: none
  std::int64_t n = 1000;                  ///< images drawn for each of them
  std::string reference;                  ///< what they are compared with, as `uvit fid` takes it; "": the training data

  bool operator==(const EvalConfig&) const = default;
};

struct Config {
  ModelConfig model;
  DiffusionConfig diffusion;
  DataConfig data;
  OptimizerConfig optimizer;
  TrainConfig train;
  SampleConfig sample;
  EvalConfig eval;

  bool operator==(const Config&) const = default;
};

/// Reads a TOML file and applies "section.key=value" overrides. Throws Error, naming file, line and the nearest key, for an unknown
/// key, a wrong type, a value out of range, or syntax that is not TOML; checks every field (validate).
Config load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});
Config parse_config(const std::string& text, const std::string& origin, const std::vector<std::string>& overrides = {});

/// Every section and key with its value, as TOML that parse_config reads back to an equal Config.
std::string to_toml(const Config& config);

/// Range and consistency checks that need no table: positive sizes, patch divides image, heads divide width, lists of the right length.
void validate(const Config& config);

/// "section.key  (default)  what it is", one line a key: the text of `uvit train --help-keys`.
std::string describe_keys();

}  // namespace uvit
