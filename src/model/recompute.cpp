#include <torch/torch.h>

#include "model/recompute.h"

#include <ATen/autocast_mode.h>

#include <array>

namespace uvit {
namespace {

using Body = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

/// Autocast is a setting of a thread, and backward runs on threads of its own where there is a GPU.
class AutocastSettings {
 public:
  AutocastSettings() {
    for (std::size_t i = 0; i < kDevices.size(); ++i)
      settings_[i] = {at::autocast::is_autocast_enabled(kDevices[i]), at::autocast::get_autocast_dtype(kDevices[i])};
  }
  void apply() const {
    for (std::size_t i = 0; i < kDevices.size(); ++i) {
      at::autocast::set_autocast_enabled(kDevices[i], settings_[i].first);
      at::autocast::set_autocast_dtype(kDevices[i], settings_[i].second);
    }
  }

 private:
  static constexpr std::array kDevices = {at::kCPU, at::kCUDA};
  std::array<std::pair<bool, at::ScalarType>, kDevices.size()> settings_;
};

/// Applies settings for its lifetime.
class WithAutocast {
 public:
  explicit WithAutocast(const AutocastSettings& settings) {
    settings.apply();
    at::autocast::increment_nesting();
  }
  ~WithAutocast() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    before_.apply();
  }
  WithAutocast(const WithAutocast&) = delete;
  WithAutocast& operator=(const WithAutocast&) = delete;

 private:
  const AutocastSettings before_;
};

/// What autograd keeps beside the tensors. It takes no undefined ones, so that `given` says where they were.
struct Run : torch::CustomClassHolder {
  Body body;
  std::vector<bool> given;
  AutocastSettings autocast;

  at::Tensor operator()(at::TensorList defined) const {
    std::vector<at::Tensor> inputs;
    std::size_t next = 0;
    for (const bool is_given : given) inputs.push_back(is_given ? defined[next++] : at::Tensor());
    return body(inputs);
  }
};

struct Recompute : torch::autograd::Function<Recompute> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const c10::intrusive_ptr<Run>& run, at::TensorList inputs) {
    context->saved_data["run"] = c10::IValue::make_capsule(run);
    context->save_for_backward(inputs.vec());
    return (*run)(inputs);  // without a graph: autograd is off in here
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, const torch::autograd::variable_list& gradients) {
    const auto run = c10::static_intrusive_pointer_cast<Run>(context->saved_data["run"].toCapsule());
    torch::autograd::variable_list inputs;
    for (const at::Tensor& input : context->get_saved_variables()) inputs.push_back(input.detach().requires_grad_(input.requires_grad()));
    at::Tensor output;
    {
      const at::AutoGradMode with_graph(true);
      const WithAutocast settings(run->autocast);
      output = (*run)(inputs);
    }
    torch::autograd::backward({output}, {gradients[0]});  // adds to the gradients of the body's parameters
    torch::autograd::variable_list result = {at::Tensor()};  // of `run`
    for (const at::Tensor& input : inputs) result.push_back(input.requires_grad() ? input.grad() : at::Tensor());
    return result;
  }
};

}  // namespace

at::Tensor recompute(Body body, const std::vector<at::Tensor>& inputs) {
  if (!at::GradMode::is_enabled()) return body(inputs);
  auto run = c10::make_intrusive<Run>();
  run->body = std::move(body);
  std::vector<at::Tensor> defined;
  for (const at::Tensor& input : inputs) {
    run->given.push_back(input.defined());
    if (input.defined()) defined.push_back(input);
  }
  return Recompute::apply(run, at::TensorList(defined));  // a vector would not be looked into
}

}  // namespace uvit
