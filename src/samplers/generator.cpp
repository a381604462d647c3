#include <torch/torch.h>

#include "samplers/generator.h"

#include <fmt/format.h>

#include <cmath>

#include "attention/device.h"
#include "core/error.h"
#include "core/random.h"
#include "diffusion/autocast.h"
#include "diffusion/wrappers.h"
#include "samplers/time_grid.h"

namespace uvit {
namespace {

/// On the great circle through both, which keeps the norm of noise that a straight line would lose; share [B, 1, 1, 1].
at::Tensor spherical(const at::Tensor& a, const at::Tensor& b, const at::Tensor& share) {
  const auto dot = [](const at::Tensor& one, const at::Tensor& other) { return (one * other).flatten(1).sum(1).view({-1, 1, 1, 1}); };
  const at::Tensor cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(), angle = cosine.clamp(-1, 1).acos(), sine = angle.sin();
  const at::Tensor mixed = (a * ((1 - share) * angle).sin() + b * (share * angle).sin()) / sine;
  return at::where(sine.abs() < 1e-6, a, mixed);  // a seed with itself
}

LabelledNetwork network_of(UViT* model, bool use_graph) {
  if (!model) return nullptr;
  return fixed_network([model](const at::Tensor& x, const at::Tensor& t, const at::Tensor& y) { return model->forward(x, t, y); }, use_graph);
}

}  // namespace

Generator::Generator(UViT& model, const Config& config, const GenerateRequest& request)
    : model_(model),
      config_(config),
      request_(request),
      device_(model.parameters().front().device()),
      schedule_(make_schedule(config.diffusion)),
      prediction_(find_parameterisation(config.diffusion.prediction)),
      solver_(find_solver(config.sample.solver)),
      network_(network_of(&model, request.cuda_graph)),
      guide_network_(network_of(request.guide.model, request.cuda_graph)) {}

at::Tensor Generator::run(const MicroBatch& batch, const std::function<void(std::int64_t step, const at::Tensor& x)>& on_step, std::int64_t& nfe) {
  const AutocastGuard autocast(config_.sample.precision, device_.type());
  SamplerOptions options = sampler_options(config_.sample);
  options.on_step = on_step;
  at::Tensor x = initial_noise(batch);
  if (request_.strength < 1) {
    options.t_start = start_time();
    x = request_.image.to(device_, at::kFloat) * schedule_->alpha(options.t_start) + x * schedule_->sigma(options.t_start);
  } else {
    if (!reads_pure_noise()) options.t_start = schedule_->t_max();
    if (schedule_->prior_std() != 1) x = x * schedule_->prior_std();
  }
  const NoiseSource noise = [&](std::int64_t k) { return draw(batch, request_.seeds, static_cast<std::uint32_t>(k)); };
  const SampleResult result = solver_.solve(denoiser(batch), *schedule_, x, noise, options);
  nfe = std::max(nfe, result.nfe);
  return result.x0.to(at::kCPU, at::kFloat);
}

/// Draw k of every image of the batch from its own seed. A padding row takes the seed that belongs into it and is smallest, its own number.
at::Tensor Generator::draw(const MicroBatch& batch, const std::vector<std::uint64_t>& seeds, std::uint32_t k) const {
  const UViTOptions& o = model_.options();
  at::Tensor noise = torch::empty({static_cast<std::int64_t>(batch.rows.size()), o.channels, o.height, o.width}, at::kFloat);
  const auto values = static_cast<std::size_t>(o.channels * o.height * o.width);
  for (std::size_t row = 0; row < batch.rows.size(); ++row) {
    const std::int64_t index = batch.rows[row];
    const std::uint64_t seed = index == MicroBatch::kPadding ? row : seeds[static_cast<std::size_t>(index)];
    RandomStream(seed, RandomPurpose::sample, 0, k).fill_normal({noise.data_ptr<float>() + row * values, values});
  }
  return to_device(noise, device_);
}

at::Tensor Generator::initial_noise(const MicroBatch& batch) const {
  const at::Tensor noise = draw(batch, request_.seeds, 0);
  if (request_.other_seeds.empty()) return noise;
  return spherical(noise, draw(batch, request_.other_seeds, 0), shares(batch, request_.seed_share));
}

at::Tensor Generator::labels(const MicroBatch& batch, const std::vector<std::int64_t>& of_images) const {
  std::vector<std::int64_t> labels;
  for (const std::int64_t index : batch.rows) labels.push_back(index == MicroBatch::kPadding ? 0 : of_images[static_cast<std::size_t>(index)]);
  return to_device(at::tensor(labels, at::kLong), device_);
}

at::Tensor Generator::shares(const MicroBatch& batch, const std::vector<double>& of_images) const {
  std::vector<double> shares;
  for (const std::int64_t index : batch.rows) shares.push_back(index == MicroBatch::kPadding ? 0 : of_images[static_cast<std::size_t>(index)]);
  return to_device(at::tensor(shares, at::kFloat), device_).view({-1, 1, 1, 1});
}

/// `strength` of the way to noise: of t_max, or for edm of its grid uniform in sigma^(1/7).
double Generator::start_time() const {
  if (schedule_->unit_time()) return request_.strength * schedule_->t_max();
  const double low = std::pow(schedule_->t_min(), 1.0 / 7), high = std::pow(schedule_->t_max(), 1.0 / 7);
  return std::pow(low + request_.strength * (high - low), 7);
}

/// At t = 1 of flow alpha is 0, and a predicted eps says nothing of x0 there: the flow solvers then start at t_max, as the others do.
bool Generator::reads_pure_noise() const {
  const double t = schedule_->t_noise(), alpha = schedule_->alpha(t), sigma = schedule_->sigma(t);
  const auto reads = [&](const Parameterisation& prediction) { return std::isfinite(prediction.x0_error(alpha, sigma, schedule_->sigma_data)); };
  return reads(prediction_) && (!request_.guide.model || reads(find_parameterisation(request_.guide.config.diffusion.prediction)));
}

Condition Generator::condition(const MicroBatch& batch, const std::vector<std::int64_t>& labels_of_images) const {
  Condition condition;
  if (config_.data.num_classes > 0) condition.y = labels(batch, labels_of_images);
  if (!request_.contexts.defined()) return condition;
  std::vector<std::int64_t> rows;
  for (const std::int64_t index : batch.rows) rows.push_back(index == MicroBatch::kPadding ? 0 : index);
  condition.context = request_.contexts.index_select(0, at::tensor(rows, at::kLong)).to(device_);
  return condition;
}

Condition Generator::null_condition(const Condition& like) const {
  Condition null;
  if (like.y.defined()) null.y = at::full_like(like.y, config_.data.num_classes);
  if (like.context.defined()) null.context = request_.empty_context.to(device_).unsqueeze(0).expand_as(like.context);
  return null;
}

/// A network with context tokens runs as it is: fixed_network knows labels alone.
Denoiser Generator::network(UViT& model, const Parameterisation& prediction, const Condition& c) const {
  if (c.context.defined())
    return make_denoiser([&model, c](const at::Tensor& x, const at::Tensor& t) { return model.forward(x, t, c.y, c.context); }, *schedule_, prediction);
  const LabelledNetwork& run = &model == &model_ ? network_ : guide_network_;
  return make_denoiser([&run, y = c.y](const at::Tensor& x, const at::Tensor& t) { return run(x, t, y); }, *schedule_, prediction);
}

Denoiser Generator::conditional(UViT& model, const Parameterisation& prediction, const MicroBatch& batch) const {
  const Denoiser one = network(model, prediction, condition(batch, request_.labels));
  if (request_.other_labels.empty()) return one;
  return blend(one, network(model, prediction, condition(batch, request_.other_labels)), shares(batch, request_.label_share));
}

/// The prediction to follow and the one to leave.
PairDenoiser Generator::pair(const MicroBatch& batch, const Denoiser& conditional_) const {
  if (request_.guide.model) {
    return pair_of(conditional_, conditional(*request_.guide.model, find_parameterisation(request_.guide.config.diffusion.prediction), batch));
  }
  const Condition given = condition(batch, request_.labels), null = null_condition(given);
  if (!config_.sample.guidance_one_batch || !request_.other_labels.empty()) return pair_of(conditional_, network(model_, prediction_, null));
  const auto join = [](const at::Tensor& a, const at::Tensor& b) { return a.defined() ? at::cat({a, b}) : at::Tensor(); };
  return [both = network(model_, prediction_, {join(given.y, null.y), join(given.context, null.context)})](const at::Tensor& x, const std::vector<double>& t) {
    std::vector<double> twice = t;
    twice.insert(twice.end(), t.begin(), t.end());
    const Prediction read = both(at::cat({x, x}), twice);
    const auto half = [&](const at::Tensor& rows, std::int64_t first) { return rows.narrow(0, first, x.size(0)); };
    return std::pair(Prediction{half(read.x0, 0), half(read.eps, 0)}, Prediction{half(read.x0, x.size(0)), half(read.eps, x.size(0))});
  };
}

Denoiser Generator::denoiser(const MicroBatch& batch) const {
  const SampleConfig& sample = config_.sample;
  Denoiser result = conditional(model_, prediction_, batch);
  if (sample.guidance_scale != 1) {
    GuidanceOptions options;
    options.scale = sample.guidance_scale;
    if (!sample.guidance_interval.empty()) {
      options.low = sample.guidance_interval[0];
      options.high = sample.guidance_interval[1];
    }
    options.rescale = sample.guidance_rescale;
    options.channels = sample.guidance_channels;
    result = guide(result, pair(batch, result), *schedule_, options);
  }
  if (sample.thresholding > 0) result = threshold(std::move(result), *schedule_, sample.thresholding);
  if (request_.mask.defined())
    result = keep_known(std::move(result), *schedule_, request_.image.to(device_, at::kFloat).unsqueeze(0), request_.mask.to(device_).unsqueeze(0));
  return request_.on_call ? watched(std::move(result), batch) : result;
}

Denoiser Generator::watched(Denoiser denoiser, const MicroBatch& batch) const {
  return [this, denoiser = std::move(denoiser), batch](const at::Tensor& x, const std::vector<double>& t) {
    Prediction prediction = denoiser(x, t);
    for (std::size_t row = 0; row < batch.rows.size(); ++row) {
      if (batch.rows[row] == MicroBatch::kPadding) continue;
      const auto r = static_cast<std::int64_t>(row);
      const at::Tensor state = x[r] / std::hypot(schedule_->alpha(t[row]), schedule_->sigma(t[row]));
      request_.on_call(static_cast<std::size_t>(batch.rows[row]), t[row], state.to(at::kCPU, at::kFloat), prediction.x0[r].to(at::kCPU, at::kFloat));
    }
    return prediction;
  };
}

}  // namespace uvit
