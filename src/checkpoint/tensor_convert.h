#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "io/host_tensor.h"

namespace torch::nn { class Module; }

namespace uvit {

/// A copy on the CPU / of the host tensor.
HostTensor to_host(const at::Tensor& tensor);
at::Tensor to_torch(const HostTensor& tensor);

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

TensorFile to_tensor_file(const NamedTensors& tensors);
/// Copies the file's tensors into the module's parameters, widened or narrowed to their dtype; all or none. Throws Error, naming the parameter
/// and both shapes, when one is missing, left over, or of another shape. @param origin the file, for messages
void load_parameters(torch::nn::Module& module, const TensorFile& file, const std::string& origin);
NamedTensors named_parameters(const torch::nn::Module& module);

}  // namespace uvit
