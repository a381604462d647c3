#include <torch/torch.h>

#include "samplers/generate.h"

#include <chrono>
#include <map>

#include "samplers/generator.h"

namespace uvit {
namespace {

std::int64_t count_images(const MicroBatch& batch) {
  std::int64_t count = 0;
  for (const std::int64_t index : batch.rows) count += index != MicroBatch::kPadding;
  return count;
}

}  // namespace

GenerateReport generate(UViT& model, const Config& config, const GenerateRequest& request, const ImageSink& sink,
                        const std::function<void(std::int64_t done)>& on_progress) {
  check_request(model, config, request);
  const torch::NoGradGuard no_grad;
  const auto start = std::chrono::steady_clock::now();
  Generator generator(model, config, request);
  GenerateReport report;
  std::map<std::size_t, at::Tensor> ready;  // drawn before their turn in the order of the request
  std::size_t next = 0;
  std::int64_t done = 0;
  for (const MicroBatch& batch : plan_micro_batches(request.seeds, config.sample.batch_size)) {
    const std::int64_t images = count_images(batch);
    const auto on_step = [&](std::int64_t step, const at::Tensor&) {
      if (on_progress) on_progress(done + images * step / config.sample.num_steps);
    };
    at::Tensor drawn = generator.run(batch, on_step, report.nfe);
    if (request.decode) drawn = request.decode(drawn);
    for (std::size_t row = 0; row < batch.rows.size(); ++row) {
      if (batch.rows[row] != MicroBatch::kPadding) ready[static_cast<std::size_t>(batch.rows[row])] = drawn[static_cast<std::int64_t>(row)];
    }
    for (auto image = ready.find(next); image != ready.end(); image = ready.find(++next)) {
      sink(next, image->second);
      ready.erase(image);
    }
    done += images;
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace uvit
