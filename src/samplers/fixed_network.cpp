#include <torch/torch.h>

#include "samplers/fixed_network.h"

#include <cstdlib>
#include <string_view>

#ifdef UVIT_HAS_CUDA
#include "samplers/cuda/graphed_network.h"
#endif

namespace uvit {

LabelledNetwork fixed_network(LabelledNetwork network, [[maybe_unused]] bool use_graph) {
#ifdef UVIT_HAS_CUDA
  const char* wish = std::getenv("UVIT_CUDA_GRAPH");
  if (wish && std::string_view(wish) == "0") use_graph = false;
  if (use_graph) return graphed_network(std::move(network));
#endif
  return network;
}

}  // namespace uvit
