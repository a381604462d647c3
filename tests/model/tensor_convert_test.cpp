#include <torch/torch.h>

#include "checkpoint/tensor_convert.h"

#include <catch2/catch.hpp>

#include "core/error.h"

using namespace uvit;

namespace {

TensorFile file_of(const torch::nn::Linear& linear) {
  TensorFile file = to_tensor_file(named_parameters(*linear));
  return file;
}

}  // namespace

TEST_CASE("tensors survive the way to the host and back, of every dtype, from strided memory too") {
  for (const at::ScalarType dtype :
       {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort, at::kChar, at::kByte, at::kBool}) {
    INFO(c10::toString(dtype));
    const at::Tensor tensor = at::arange(12).view({3, 4}).to(dtype).t();
    const at::Tensor back = to_torch(to_host(tensor));
    CHECK(back.scalar_type() == dtype);
    CHECK(at::equal(back, tensor));
  }
  CHECK(to_torch(to_host(at::zeros({0, 3}))).sizes() == at::IntArrayRef({0, 3}));
  CHECK(to_torch(to_host(at::scalar_tensor(2.5))).dim() == 0);
  CHECK_THROWS_AS(to_host(at::zeros({2}, at::kComplexFloat)), Error);
  HostTensor truncated = to_host(at::zeros({4}));
  truncated.data.pop_back();
  CHECK_THROWS_WITH(to_torch(truncated), Catch::Contains("[4]"));
}

TEST_CASE("load_parameters copies by name and converts the dtype") {
  torch::nn::Linear source(3, 2), target(3, 2);
  target->to(at::kDouble);
  load_parameters(*target, file_of(source), "weights.safetensors");
  CHECK(at::equal(target->weight, source->weight.to(at::kDouble)));
  CHECK(at::equal(target->bias, source->bias.to(at::kDouble)));
  CHECK(target->weight.requires_grad());
}

TEST_CASE("load_parameters names the file, the parameter and both shapes, and leaves the module as it was") {
  torch::nn::Linear source(3, 2), wider(4, 2), unbiased(torch::nn::LinearOptions(3, 2).bias(false));
  const at::Tensor before = wider->weight.detach().clone();
  CHECK_THROWS_WITH(load_parameters(*wider, file_of(source), "w.pth"),
                    Catch::Contains("w.pth") && Catch::Contains("'weight'") && Catch::Contains("[2, 3]") && Catch::Contains("[2, 4]"));
  CHECK(at::equal(wider->weight, before));
  CHECK_THROWS_WITH(load_parameters(*source, file_of(unbiased), "w.pth"), Catch::Contains("'bias'") && Catch::Contains("missing"));
  CHECK_THROWS_WITH(load_parameters(*unbiased, file_of(source), "w.pth"), Catch::Contains("'bias'") && Catch::Contains("no parameter"));
}
