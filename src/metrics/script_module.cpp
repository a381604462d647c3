#include <torch/torch.h>

#include "metrics/script_module.h"

#include <fmt/format.h>

#include <filesystem>

#include "core/error.h"
#include "io/host_tensor.h"

namespace uvit {
namespace {

// LibTorch's messages run over many lines, the last of which says what is wrong.
std::string last_line(const std::exception& e) {
  const std::string text = e.what();
  const std::size_t end = text.find_last_not_of("\n "), start = text.rfind('\n', end);
  return text.substr(start + 1, end - start);
}

}  // namespace

torch::jit::Module load_script_module(const std::string& file, at::Device device) {
  try {
    torch::jit::Module module = torch::jit::load(file, device);
    module.eval();
    return module;
  } catch (const c10::Error& e) {
    const std::string text = e.what_without_backtrace();
    throw Error(fmt::format("cannot load {} as a TorchScript module: {}", file, text.substr(0, text.find('\n'))));
  }
}

c10::IValue run_script_module(torch::jit::Module& module, const at::Tensor& images, const std::string& file) {
  const torch::NoGradGuard no_grad;
  try {
    return module.forward({images});
  } catch (const std::exception& e) {
    throw Error(fmt::format("{} fails on images {}: {}", file, format_shape(images.sizes().vec()), last_line(e)));
  }
}

}  // namespace uvit
