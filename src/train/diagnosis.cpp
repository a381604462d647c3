#include <torch/torch.h>

#include "train/diagnosis.h"

#include <ATen/record_function.h>
#include <fmt/format.h>

#include <cmath>
#include <map>

#include "diffusion/loss.h"
#include "train/evaluation.h"

namespace uvit {
namespace {

bool is_finite(const at::Tensor& tensor) { return !tensor.is_floating_point() || at::isfinite(tensor).all().item<bool>(); }

/// max |scale q k^T|, 0-dim. @param q, k [B, H, L, D]. Image by image: all scores of a batch at once may be gigabytes.
at::Tensor largest_score(const at::Tensor& q, const at::Tensor& k, double scale) {
  at::Tensor largest = at::zeros({}, q.options().dtype(at::kFloat));
  for (std::int64_t image = 0; image < q.size(0); ++image)
    for (std::int64_t head = 0; head < q.size(1); ++head) {
      const at::Tensor scores = at::matmul(q[image][head].to(at::kFloat), k[image][head].to(at::kFloat).t());
      largest = at::maximum(largest, scores.abs().amax());  // keeps NaN
    }
  return largest * std::abs(scale);
}

/// What the callbacks of one watched pass write to.
struct Watch {
  std::map<const void*, std::string> owners;  // first byte of a parameter's memory -> its module
  bool every_tensor = false;
  int depth = 0;                              // of operations within operations
  std::string layer = "the network's input";  // the module whose parameter was seen last
  std::string not_finite;
  std::vector<std::pair<std::string, at::Tensor>> scores;  // block, 0-dim

  void see_parameters(const at::Tensor& tensor) {
    const auto owner = tensor.has_storage() ? owners.find(tensor.storage().data()) : owners.end();
    if (owner != owners.end()) layer = owner->second;
  }
  void look_at(const at::Tensor& tensor, const char* what, const char* operation) {
    if (!every_tensor || !not_finite.empty() || !tensor.defined() || tensor.device().is_meta() || is_finite(tensor)) return;
    const bool inside = layer.find(' ') == std::string::npos;
    not_finite = fmt::format("the {} of {}{} {}", what, operation, inside ? " in or behind" : " behind", layer);
  }
  void add_score(const at::Tensor& score) {
    const std::string block = layer.substr(0, layer.find(".attn"));
    if (block == layer) return;  // no attention of a block
    if (scores.empty() || scores.back().first != block)
      scores.emplace_back(block, score);
    else
      scores.back().second = at::maximum(scores.back().second, score);
  }
};

thread_local Watch* watching = nullptr;

template <class See>
void for_each_tensor(c10::ArrayRef<const c10::IValue> values, const See& see) {
  for (const c10::IValue& value : values) {
    if (value.isTensor()) {
      see(value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) see(tensor);
    }
  }
}

double scale_of(const c10::IValue& scale, std::int64_t head_dim) {
  return scale.isNone() ? 1 / std::sqrt(static_cast<double>(head_dim)) : scale.toDouble();
}

/// Largest scores of the two attention operators (operator.h), and of the product that the eager back end makes scores with.
void see_attention(Watch& watch, std::string_view name, c10::ArrayRef<const c10::IValue> inputs) {
  if (name == "uvit::attention_packed") {
    const at::Tensor qkv = inputs[0].toTensor().permute({2, 0, 3, 1, 4});  // [S, B, H, L, D]
    watch.add_score(largest_score(qkv[0], qkv[1], scale_of(inputs[2], qkv.size(4))));
  } else if (name == "uvit::attention") {
    const at::Tensor q = inputs[0].toTensor(), k = inputs[1].toTensor();
    watch.add_score(largest_score(q, k, scale_of(inputs[4], q.size(3))));
    if (inputs[6].isTensor() && inputs[6].toTensor().defined())
      watch.add_score(largest_score(inputs[6].toTensor(), inputs[7].toTensor(), scale_of(inputs[4], q.size(3))));
  } else if (name == "aten::baddbmm") {  // beta = 0, alpha = scale; q [B*H, L, D], k^T [B*H, D, Lk]
    watch.add_score(largest_score(inputs[1].toTensor().unsqueeze(0), inputs[2].toTensor().transpose(1, 2).unsqueeze(0), inputs[4].toScalar().toDouble()));
  }
}

std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& function) {
  Watch& watch = *watching;
  const at::DisableRecordFunctionGuard unwatched;
  const auto inputs = function.inputs();
  for_each_tensor(inputs, [&](const at::Tensor& tensor) { watch.see_parameters(tensor); });
  see_attention(watch, function.name(), inputs);
  // What a kernel wrote that no operation gave out is seen where it is read. Operations within operations may read memory not yet written.
  if (watch.depth++ == 0) for_each_tensor(inputs, [&](const at::Tensor& tensor) { watch.look_at(tensor, "input", function.name()); });
  return nullptr;
}

void on_end(const at::RecordFunction& function, at::ObserverContext*) {
  Watch& watch = *watching;
  const at::DisableRecordFunctionGuard unwatched;
  const std::string_view name = function.name();
  if (--watch.depth == 0 && name.find("empty") == std::string_view::npos)  // memory not yet written
    for_each_tensor(c10::ArrayRef<const c10::IValue>(function.outputs().data(), function.outputs().size()), [&](const at::Tensor& tensor) { watch.look_at(tensor, "output", function.name()); });
}

/// Watches this thread's operations while it lives.
class Watching {
 public:
  explicit Watching(Watch& watch) {
    watching = &watch;
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(on_start, on_end).needsInputs(true).needsOutputs(true).scopes({at::RecordScope::FUNCTION}));
  }
  ~Watching() {
    at::removeCallback(handle_);
    watching = nullptr;
  }
  Watching(const Watching&) = delete;
  Watching& operator=(const Watching&) = delete;

 private:
  at::CallbackHandle handle_{};
};

at::Tensor first_rows(const at::Tensor& tensor, std::int64_t count) { return tensor.defined() ? tensor.narrow(0, 0, count) : at::Tensor(); }

}  // namespace

double ForwardReport::max_score() const {
  double largest = 0;
  for (const auto& [block, score] : max_scores) largest = std::isnan(score) || score > largest ? score : largest;
  return largest;
}

ForwardReport inspect_forward(UViT& model, const TrainingBatch& batch, const Config& config, const Schedule& schedule, std::int64_t images,
                              bool every_tensor) {
  const torch::NoGradGuard no_grad;
  const std::int64_t n = std::min(images, batch.x0.size(0));
  Watch watch;
  watch.every_tensor = every_tensor;
  for (const auto& item : model.named_parameters())
    watch.owners[item.value().storage().data()] = item.key().substr(0, std::min(item.key().rfind('.'), item.key().size()));
  {
    const Watching now(watch);
    const Network network = bind_network(model, config.train.precision, first_rows(batch.labels, n), first_rows(batch.context, n));
    diffusion_loss(network, batch.x0.narrow(0, 0, n), batch.eps.narrow(0, 0, n), {batch.t.begin(), batch.t.begin() + n}, schedule,
                   find_parameterisation(config.diffusion.prediction), find_weighting(config.diffusion.weighting));
  }
  ForwardReport report;
  report.first_not_finite = watch.not_finite;
  for (const auto& [block, score] : watch.scores) report.max_scores.emplace_back(block, score.item<double>());
  return report;
}

std::string first_not_finite(const UViT& model, const TrainingBatch& batch, const ForwardReport& forward) {
  for (std::int64_t i = 0; i < batch.x0.size(0); ++i)
    if (!is_finite(batch.x0[i])) return fmt::format("image {} of the batch, as the data has it", i);
  if (batch.context.defined() && !is_finite(batch.context)) return "the captions of the batch, as the data has them";
  for (const auto& item : model.named_parameters())
    if (!is_finite(item.value())) return fmt::format("parameter {}", item.key());
  if (!forward.first_not_finite.empty()) return forward.first_not_finite;
  // Backward goes from the output to the input: of the gradients the last one in the order of the network is the first that was made.
  const auto parameters = model.named_parameters().items();
  for (auto item = parameters.rbegin(); item != parameters.rend(); ++item)
    if (item->value().grad().defined() && !is_finite(item->value().grad())) return fmt::format("the gradient of {}", item->key());
  return "";
}

}  // namespace uvit
