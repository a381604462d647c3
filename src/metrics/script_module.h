#pragma once
#include <torch/script.h>

#include <string>

namespace uvit {

/// A TorchScript module in evaluation mode. Throws Error, in one line that names the file, for what cannot be loaded as one.
torch::jit::Module load_script_module(const std::string& file, at::Device device);

/// module.forward(images), without gradients. Throws Error naming the file where it fails on images of this shape.
c10::IValue run_script_module(torch::jit::Module& module, const at::Tensor& images, const std::string& file);

}  // namespace uvit
