#include <torch/torch.h>

#include "metrics/folded_conv.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/format.h>

#include "checkpoint/tensor_convert.h"
#include "core/error.h"

namespace uvit {
namespace {

// oneDNN's operators as TorchInductor calls them: not in a header, so found by name. One that is not there leaves plain conv2d.
std::optional<c10::OperatorHandle> find_operator(const char* name) {
  if (!at::hasMKLDNN() || !at::globalContext().userEnabledMkldnn()) return std::nullopt;
  return c10::Dispatcher::singleton().findSchema({name, ""});
}

const std::optional<c10::OperatorHandle>& pack_operator() {
  static const auto found = find_operator("mkldnn::_reorder_convolution_weight");
  return found;
}

const std::optional<c10::OperatorHandle>& conv_operator() {
  static const auto found = find_operator("mkldnn::_convolution_pointwise");
  return found;
}

at::Tensor call(const c10::OperatorHandle& op, torch::jit::Stack stack) {
  op.callBoxed(stack);
  return stack.at(0).toTensor();
}

at::Tensor tensor_of(const TensorFile& file, const std::string& name, std::int64_t dims, std::int64_t size) {
  const at::Tensor tensor = to_torch(file.at(name)).to(at::kDouble);
  if (tensor.dim() != dims || (size > 0 && tensor.size(0) != size)) {
    throw Error(fmt::format("tensor {} has shape {}, which does not fit its layer", name, format_shape(tensor.sizes().vec())));
  }
  return tensor;
}

}  // namespace

FoldedConv::FoldedConv(const TensorFile& file, const std::string& name, std::array<std::int64_t, 2> stride, std::array<std::int64_t, 2> padding,
                       double epsilon)
    : stride_(stride.begin(), stride.end()), padding_(padding.begin(), padding.end()) {
  const at::Tensor weight = tensor_of(file, name + ".conv.weight", 4, 0);
  const auto norm = [&](const char* part) { return tensor_of(file, name + ".bn." + part, 1, weight.size(0)); };
  const at::Tensor gain = norm("weight") / (norm("running_var") + epsilon).sqrt();
  weight_ = (weight * gain.view({-1, 1, 1, 1})).to(at::kFloat);
  bias_ = (norm("bias") - norm("running_mean") * gain).to(at::kFloat);
}

void FoldedConv::to(at::Device device, at::ScalarType dtype) {
  weight_ = weight_.to(device, dtype).contiguous(at::MemoryFormat::ChannelsLast);
  bias_ = bias_.to(device, dtype);
  packed_.reset();
}

at::Tensor FoldedConv::operator()(const at::Tensor& x, bool relu) {
  const std::vector<std::int64_t> dilation = {1, 1};
  const std::int64_t groups = 1;
  if (!x.is_cpu() || !pack_operator() || !conv_operator()) {
    const at::Tensor y = at::conv2d(x, weight_, bias_, stride_, padding_);
    return relu ? y.relu() : y;
  }
  if (!packed_.defined()) packed_ = call(*pack_operator(), {weight_, padding_, stride_, dilation, groups, x.sizes().vec()});
  return call(*conv_operator(), {x, packed_, bias_, padding_, stride_, dilation, groups, std::string(relu ? "relu" : "none"),
                                 c10::impl::GenericList(c10::OptionalType::create(c10::NumberType::get())), std::optional<std::string>()});
}

}  // namespace uvit
