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

/// The images that process `from` has drawn, in rank 0. Micro-batches are of one size, so those of all processes have one shape.
at::Tensor hand_over(ProcessGroup& processes, const at::Tensor& drawn, int from) {
  if (from == 0 || (processes.rank() != 0 && processes.rank() != from)) return drawn;
  if (!processes.is_first()) {
    processes.send(drawn.to(at::kCPU, at::kFloat).contiguous(), 0);
    return drawn;
  }
  at::Tensor images = at::empty(drawn.sizes(), at::kFloat);
  processes.receive(images, from);
  return images;
}

struct Stopped {};

}  // namespace

GenerateReport generate(UViT& model, const Config& config, const GenerateRequest& request, const ImageSink& sink,
                        const std::function<void(std::int64_t done)>& on_progress) {
  check_request(model, config, request);
  const torch::NoGradGuard no_grad;
  const auto start = std::chrono::steady_clock::now();
  Generator generator(model, config, request);
  GenerateReport report;
  ProcessGroup alone;
  ProcessGroup& processes = request.processes ? *request.processes : alone;
  const auto together = static_cast<std::size_t>(processes.size());
  std::map<std::size_t, at::Tensor> ready;  // drawn before their turn in the order of the request
  std::size_t next = 0;
  std::int64_t done = 0;
  const std::vector<MicroBatch> batches = plan_micro_batches(request.seeds, config.sample.batch_size);
  for (std::size_t first = 0; first < batches.size(); first += together) {  // a micro-batch for each process
    const std::size_t end = std::min(batches.size(), first + together), own = first + static_cast<std::size_t>(processes.rank());
    std::int64_t images = 0;
    for (std::size_t i = first; i < end; ++i) images += count_images(batches[i]);
    const auto on_step = [&](std::int64_t step, const at::Tensor&) {
      if (request.stop && request.stop()) throw Stopped();
      if (on_progress) on_progress(done + images * step / config.sample.num_steps);
    };
    at::Tensor drawn;
    try {
      if (own < end) drawn = generator.run(batches[own], on_step, report.nfe);
      if (own < end && request.decode) drawn = request.decode(drawn);
    } catch (const Stopped&) {
      report.stopped = true;
    }
    if (request.stop) report.stopped = processes.any(report.stopped);
    if (report.stopped) break;
    for (std::size_t i = first; i < end; ++i) {
      const at::Tensor received = hand_over(processes, drawn, static_cast<int>(i - first));
      for (std::size_t row = 0; processes.is_first() && row < batches[i].rows.size(); ++row) {
        if (batches[i].rows[row] != MicroBatch::kPadding) ready[static_cast<std::size_t>(batches[i].rows[row])] = received[static_cast<std::int64_t>(row)];
      }
    }
    for (auto image = ready.find(next); image != ready.end(); image = ready.find(++next)) {
      sink(next, image->second);
      ready.erase(image);
    }
    done += images;
  }
  for (const at::Tensor& nfe : processes.all_gather(at::full({1}, report.nfe, at::kLong))) report.nfe = std::max(report.nfe, nfe.item<std::int64_t>());
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace uvit
