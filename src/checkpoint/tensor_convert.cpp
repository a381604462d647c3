#include <torch/torch.h>

#include "checkpoint/tensor_convert.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <set>

#include "core/error.h"

namespace uvit {
namespace {

struct DTypePair {
  DType host;
  at::ScalarType torch;
};

constexpr std::array<DTypePair, 10> kDTypes = {{{DType::f64, at::kDouble},
                                                {DType::f32, at::kFloat},
                                                {DType::f16, at::kHalf},
                                                {DType::bf16, at::kBFloat16},
                                                {DType::i64, at::kLong},
                                                {DType::i32, at::kInt},
                                                {DType::i16, at::kShort},
                                                {DType::i8, at::kChar},
                                                {DType::u8, at::kByte},
                                                {DType::boolean, at::kBool}}};

at::ScalarType torch_dtype(DType dtype) {
  for (const DTypePair& pair : kDTypes) {
    if (pair.host == dtype) return pair.torch;
  }
  throw Error("a tensor has a dtype that LibTorch lacks");
}

DType host_dtype(at::ScalarType dtype) {
  for (const DTypePair& pair : kDTypes) {
    if (pair.torch == dtype) return pair.host;
  }
  throw Error(fmt::format("a tensor of dtype {} cannot be stored: convert it first", c10::toString(dtype)));
}

}  // namespace

HostTensor to_host(const at::Tensor& tensor) {
  const at::Tensor source = tensor.detach().to(at::kCPU).contiguous();
  HostTensor host;
  host.dtype = host_dtype(source.scalar_type());
  host.shape = source.sizes().vec();
  host.data.resize(source.nbytes());
  if (!host.data.empty()) std::memcpy(host.data.data(), source.const_data_ptr(), host.data.size());
  return host;
}

at::Tensor to_torch(const HostTensor& tensor) {
  at::Tensor result = at::empty(tensor.shape, at::TensorOptions().dtype(torch_dtype(tensor.dtype)));
  if (result.nbytes() != tensor.data.size()) {
    throw Error(fmt::format("a tensor of shape {} holds {} bytes where {} belong", format_shape(tensor.shape), tensor.data.size(), result.nbytes()));
  }
  if (!tensor.data.empty()) std::memcpy(result.mutable_data_ptr(), tensor.data.data(), tensor.data.size());
  return result;
}

TensorFile to_tensor_file(const NamedTensors& tensors) {
  TensorFile file;
  file.tensors.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) file.tensors.emplace_back(name, to_host(tensor));
  return file;
}

void load_parameters(torch::nn::Module& module, const TensorFile& file, const std::string& origin) {
  const NamedTensors parameters = named_parameters(module);
  std::vector<const HostTensor*> sources;
  std::set<std::string> wanted;
  // Everything is checked before anything is copied: a file that does not fit leaves the module as it was.
  for (const auto& [name, parameter] : parameters) {
    const HostTensor* source = file.find(name);
    const std::vector<std::int64_t> shape = parameter.sizes().vec();
    if (!source) throw Error(fmt::format("{}: parameter '{}' {} is missing: the file belongs to another model", origin, name, format_shape(shape)));
    if (source->shape != shape) {
      throw Error(fmt::format("{}: parameter '{}' has shape {} in the file and {} in the model: the file belongs to another model", origin, name,
                              format_shape(source->shape), format_shape(shape)));
    }
    sources.push_back(source);
    wanted.insert(name);
  }
  for (const auto& [name, tensor] : file.tensors) {
    if (!wanted.contains(name)) {
      throw Error(fmt::format("{}: '{}' {} is no parameter of the model: the file belongs to another model", origin, name,
                              format_shape(tensor.shape)));
    }
  }
  const torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < parameters.size(); ++i) at::Tensor(parameters[i].second).copy_(to_torch(*sources[i]));
}

NamedTensors named_parameters(const torch::nn::Module& module) {
  NamedTensors result;
  for (const auto& item : module.named_parameters()) result.emplace_back(item.key(), item.value());
  return result;
}

}  // namespace uvit
