#include <torch/torch.h>

#include "distributed/gradient_sum.h"

#include "distributed/fixed_tree.h"
#include "distributed/gradient_reducer.h"

namespace uvit {
namespace {

class PlainSum : public GradientSum {
 public:
  using GradientSum::GradientSum;
  void backward(const at::Tensor& loss, bool) override { loss.backward(); }
};

}  // namespace

std::unique_ptr<GradientSum> make_gradient_sum(ProcessGroup& processes, const std::vector<std::pair<std::string, at::Tensor>>& parameters, bool reproducible,
                                               std::int64_t micro_batches) {
  if (reproducible) return std::make_unique<FixedTreeSum>(processes, parameters, micro_batches);
  if (processes.alone()) return std::make_unique<PlainSum>(processes);
  return std::make_unique<GradientReducer>(processes, parameters);
}

}  // namespace uvit
