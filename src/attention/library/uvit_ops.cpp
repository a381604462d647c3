// What libuvit_ops.so has beside the attention library: loading it defines the operators, so that torch.ops.load_library is all that Python needs.
#include <torch/torch.h>

#include "attention/operator.h"

namespace {
[[maybe_unused]] const bool registered = (uvit::register_operators(), true);
}  // namespace
