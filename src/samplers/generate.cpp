#include <torch/torch.h>

#include "samplers/generate.h"

#include <fmt/format.h>

#include <chrono>
#include <map>

#include "core/error.h"
#include "core/random.h"
#include "diffusion/autocast.h"
#include "diffusion/parameterisation.h"
#include "samplers/micro_batch.h"

namespace uvit {
namespace {

void check_request(const UViT& model, const Config& config, const GenerateRequest& request) {
  const std::int64_t classes = config.data.num_classes;
  if (config.sample.batch_size < 1) throw Error(fmt::format("sample.batch_size is {}: it must be at least 1", config.sample.batch_size));
  if (model.options().context_dim > 0) throw Error("this model draws from context (text) tokens, which a request for images cannot give");
  if (classes == 0 && !request.labels.empty()) throw Error("labels were given to an unconditional model (data.num_classes = 0): leave them out");
  if (classes > 0 && request.labels.size() != request.seeds.size()) {
    throw Error(fmt::format("the model has {} classes: give one label an image ({} for {} images)", classes, request.labels.size(),
                            request.seeds.size()));
  }
  for (const std::int64_t label : request.labels) {
    if (label < 0 || label >= classes) throw Error(fmt::format("class {} is out of range: the model has the classes 0 ... {}", label, classes - 1));
  }
  if (config.sample.guidance_scale != 1 && (classes == 0 || config.diffusion.label_dropout <= 0)) {
    throw Error(fmt::format("guidance_scale is {}, but the model was trained {}: only guidance_scale 1 (off) will do", config.sample.guidance_scale,
                            classes == 0 ? "without labels" : "without label dropout and has no null label"));
  }
}

/// What one call of generate draws with.
class Generator {
 public:
  Generator(UViT& model, const Config& config, const GenerateRequest& request)
      : model_(model),
        config_(config),
        request_(request),
        device_(model.parameters().front().device()),
        schedule_(make_schedule(config.diffusion.schedule)),
        prediction_(find_parameterisation(config.diffusion.prediction)),
        solver_(find_solver(config.sample.solver)) {}

  /// The images of one micro-batch, [B, C, H, W] float32 on the CPU; the padding rows are noise.
  at::Tensor run(const MicroBatch& batch, const std::function<void(std::int64_t step, const at::Tensor& x)>& on_step, std::int64_t& nfe) {
    const AutocastGuard autocast(config_.sample.precision, device_.type());
    SamplerOptions options;
    options.num_steps = config_.sample.num_steps;
    options.on_step = on_step;
    const NoiseSource noise = [&](std::int64_t k) { return draw(batch, static_cast<std::uint32_t>(k)); };
    const SampleResult result = solver_.solve(denoiser(batch), *schedule_, noise(0), noise, options);
    nfe = result.nfe;
    return result.x0.to(at::kCPU, at::kFloat);
  }

 private:
  /// Draw k of every image of the batch from its own seed. A padding row takes the seed that belongs into it and is smallest, its own number.
  at::Tensor draw(const MicroBatch& batch, std::uint32_t k) const {
    const UViTOptions& o = model_.options();
    at::Tensor noise = torch::empty({static_cast<std::int64_t>(batch.rows.size()), o.channels, o.height, o.width}, at::kFloat);
    const auto values = static_cast<std::size_t>(o.channels * o.height * o.width);
    for (std::size_t row = 0; row < batch.rows.size(); ++row) {
      const std::int64_t index = batch.rows[row];
      const std::uint64_t seed = index == MicroBatch::kPadding ? row : request_.seeds[static_cast<std::size_t>(index)];
      RandomStream(seed, RandomPurpose::sample, 0, k).fill_normal({noise.data_ptr<float>() + row * values, values});
    }
    return noise.to(device_);
  }

  at::Tensor labels(const MicroBatch& batch) const {
    std::vector<std::int64_t> labels;
    for (const std::int64_t index : batch.rows) {
      labels.push_back(index == MicroBatch::kPadding ? 0 : request_.labels[static_cast<std::size_t>(index)]);
    }
    return at::tensor(labels, at::kLong).to(device_);
  }

  /// Guided: two calls of the fixed batch size a step rather than one of twice that, so that guidance costs no more memory.
  Denoiser denoiser(const MicroBatch& batch) {
    if (config_.data.num_classes == 0) return conditioned_on({});
    const at::Tensor y = labels(batch);
    return guide(conditioned_on(y), conditioned_on(at::full_like(y, config_.data.num_classes)), config_.sample.guidance_scale);
  }

  Denoiser conditioned_on(const at::Tensor& y) {
    return make_denoiser([this, y](const at::Tensor& x, const at::Tensor& t) { return model_.forward(x, t, y); }, *schedule_, prediction_);
  }

  UViT& model_;
  const Config& config_;
  const GenerateRequest& request_;
  at::Device device_;
  std::unique_ptr<Schedule> schedule_;
  const Parameterisation& prediction_;
  const SolverRow& solver_;
};

std::int64_t count_images(const MicroBatch& batch) {
  std::int64_t count = 0;
  for (const std::int64_t index : batch.rows) count += index != MicroBatch::kPadding;
  return count;
}

}  // namespace

GenerateReport generate(UViT& model, const Config& config, const GenerateRequest& request, const ImageSink& sink,
                        const std::function<void(std::int64_t done)>& on_progress) {
  check_request(model, config, request);
  const torch::NoGradGuard no_grad;
  const auto start = std::chrono::steady_clock::now();
  Generator generator(model, config, request);
  GenerateReport report;
  std::map<std::size_t, at::Tensor> ready;  // drawn before their turn in the order of the request
  std::size_t next = 0;
  std::int64_t done = 0;
  for (const MicroBatch& batch : plan_micro_batches(request.seeds, config.sample.batch_size)) {
    const std::int64_t images = count_images(batch);
    const auto on_step = [&](std::int64_t step, const at::Tensor&) {
      if (on_progress) on_progress(done + images * step / config.sample.num_steps);
    };
    const at::Tensor drawn = generator.run(batch, on_step, report.nfe);
    for (std::size_t row = 0; row < batch.rows.size(); ++row) {
      if (batch.rows[row] != MicroBatch::kPadding) ready[static_cast<std::size_t>(batch.rows[row])] = drawn[static_cast<std::int64_t>(row)];
    }
    for (auto image = ready.find(next); image != ready.end(); image = ready.find(++next)) {
      sink(next, image->second);
      ready.erase(image);
    }
    done += images;
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace uvit
