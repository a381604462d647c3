#include <torch/torch.h>

#include <fmt/format.h>

#include "core/error.h"
#include "samplers/generator.h"

namespace uvit {
namespace {

void check_labels(const std::vector<std::int64_t>& labels, std::size_t images, std::int64_t classes) {
  if (classes == 0 && !labels.empty()) throw Error("labels were given to an unconditional model (data.num_classes = 0): leave them out");
  if (classes > 0 && labels.size() != images)
    throw Error(fmt::format("the model has {} classes: give one label an image ({} for {} images)", classes, labels.size(), images));
  for (const std::int64_t label : labels)
    if (label < 0 || label >= classes) throw Error(fmt::format("class {} is out of range: the model has the classes 0 ... {}", label, classes - 1));
}

void check_interpolation(const GenerateRequest& request, std::int64_t classes) {
  const std::size_t images = request.seeds.size();
  const auto fits = [&](std::size_t others, std::size_t shares) { return others == shares && (others == 0 || others == images); };
  if (!fits(request.other_seeds.size(), request.seed_share.size()) || !fits(request.other_labels.size(), request.label_share.size()))
    throw Error("interpolation: give one other seed or class and one share an image");
  if (!request.other_labels.empty()) check_labels(request.other_labels, images, classes);
}

void check_image(const UViTOptions& o, const GenerateRequest& request) {
  if (!(request.strength > 0 && request.strength <= 1)) throw Error(fmt::format("strength is {}: it must be above 0 and at most 1", request.strength));
  if ((request.strength < 1 || request.mask.defined()) && !request.image.defined()) throw Error("strength and mask need an image to start from");
  const auto check = [&](const at::Tensor& tensor, std::int64_t channels, const char* what) {
    if (tensor.defined() && tensor.sizes() != at::IntArrayRef({channels, o.height, o.width}))
      throw Error(fmt::format("the {} is not {} x {} x {} (channels, height, width) as the model's images are", what, channels, o.height, o.width));
  };
  check(request.image, o.channels, "image");
  check(request.mask, 1, "mask");
}

void check_context(const UViTOptions& o, const Config& config, const GenerateRequest& request) {
  if (o.context_dim == 0) {
    if (request.contexts.defined()) throw Error("prompts were given to a model without context (text) tokens: leave them out");
    return;
  }
  if (!request.contexts.defined()) throw Error("this model draws from context (text) tokens: give prompts");
  const auto images = static_cast<std::int64_t>(request.seeds.size());
  if (request.contexts.sizes() != at::IntArrayRef({images, o.context_tokens, o.context_dim}))
    throw Error(fmt::format("the contexts have shape [{}], and the model wants [{}, {}, {}]: the text encoder belongs to another model",
                            fmt::join(request.contexts.sizes(), ", "), images, o.context_tokens, o.context_dim));
  if (config.sample.guidance_scale != 1 && !request.guide.model && !request.empty_context.defined())
    throw Error("guidance needs the context of the empty text");
}

void check_guidance(const UViT& model, const Config& config, const GuideModel& guide) {
  const double scale = config.sample.guidance_scale;
  const std::int64_t classes = config.data.num_classes;
  if (!guide.model) {
    const bool conditional = classes > 0 || model.options().context_dim > 0;
    if (scale != 1 && (!conditional || config.diffusion.label_dropout <= 0))
      throw Error(fmt::format("guidance_scale is {}, but the model was trained {}: only guidance_scale 1 (off) will do", scale,
                              !conditional ? "without labels" : "without label dropout and has no null label"));
    return;
  }
  const UViTOptions &o = model.options(), &g = guide.model->options();
  if (o.channels != g.channels || o.height != g.height || o.width != g.width || classes != guide.config.data.num_classes)
    throw Error("the guide draws other images or classes than the model: take an earlier or smaller checkpoint of the same data");
  if (config.diffusion.schedule != guide.config.diffusion.schedule || config.diffusion.sigma_data != guide.config.diffusion.sigma_data)
    throw Error(fmt::format("the guide was trained with schedule \"{}\" and the model with \"{}\": both must be the same",
                            guide.config.diffusion.schedule, config.diffusion.schedule));
}

}  // namespace

void check_request(const UViT& model, const Config& config, const GenerateRequest& request) {
  if (config.sample.batch_size < 1) throw Error(fmt::format("sample.batch_size is {}: it must be at least 1", config.sample.batch_size));
  check_context(model.options(), config, request);
  check_labels(request.labels, request.seeds.size(), config.data.num_classes);
  check_interpolation(request, config.data.num_classes);
  check_image(model.options(), request);
  check_guidance(model, config, request.guide);
}

}  // namespace uvit
