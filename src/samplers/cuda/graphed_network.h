#pragma once
#include "samplers/fixed_network.h"

namespace uvit {

/// fixed_network with a graph. CPU tensors go to the network itself.
LabelledNetwork graphed_network(LabelledNetwork network);

}  // namespace uvit
