#include <torch/torch.h>

#include <algorithm>
#include <set>

#include "core/error.h"
#include "core/random.h"
#include "diffusion/parameterisation.h"
#include "samplers/generate.h"
#include "samplers/micro_batch.h"
#include "support/tensors.h"

using namespace uvit;
using namespace uvit::test;

namespace {

Config tiny_config() {
  Config config;
  config.model.patch_size = 2;
  config.model.embed_dim = 24;
  config.model.depth = 2;
  config.model.num_heads = 3;
  config.model.attention = {"cog"};
  config.data.image_size = {6, 10};
  config.data.channels = 3;
  config.data.num_classes = 5;
  config.diffusion.label_dropout = 0.1;
  config.sample.solver = "euler_maruyama_sde";
  config.sample.num_steps = 3;
  config.sample.guidance_scale = 1.7;
  config.sample.batch_size = 4;
  return config;
}

std::shared_ptr<UViT> tiny_model(const Config& config) {
  auto model = std::make_shared<UViT>(make_uvit_options(config));
  model->initialise(11);
  const torch::NoGradGuard no_grad;
  // The official initial weights are so small that labels and attention would hardly show.
  for (const at::Tensor& parameter : model->parameters()) parameter.mul_(5);
  return model;
}

std::vector<at::Tensor> draw(UViT& model, const Config& config, const GenerateRequest& request, GenerateReport* report = nullptr) {
  std::vector<at::Tensor> images;
  const GenerateReport made = generate(model, config, request, [&](std::size_t index, const at::Tensor& image) {
    CHECK(index == images.size());
    images.push_back(image.clone());
  });
  if (report) *report = made;
  CHECK(images.size() == request.seeds.size());
  return images;
}

GenerateRequest request_of(std::vector<std::uint64_t> seeds, std::vector<std::int64_t> labels) {
  GenerateRequest request;
  request.seeds = std::move(seeds);
  request.labels = std::move(labels);
  return request;
}

/// Labels by the seeds.
GenerateRequest request_of(const std::vector<std::uint64_t>& seeds) {
  GenerateRequest request = request_of(seeds, {});
  for (const std::uint64_t seed : request.seeds) request.labels.push_back(static_cast<std::int64_t>(seed % 5));
  return request;
}

}  // namespace

TEST_CASE("an image is bit-equal whatever the number, the order, the place and the company") {
  Config config = tiny_config();
  const auto model = tiny_model(config);
  for (const SolverRow& solver : solver_table()) {
    for (const std::string precision : {"fp32", "bf16"}) {
      INFO(solver.name << " " << precision);
      config.sample.solver = solver.name;
      config.sample.precision = precision;
      const std::vector<std::uint64_t> seeds = {40, 41, 42, 43, 44, 45, 46};
      const std::vector<at::Tensor> seven = draw(*model, config, request_of(seeds));
      for (std::size_t i = 1; i < seven.size(); ++i) CHECK_FALSE(at::equal(seven[i], seven[0]));

      for (std::size_t i = 0; i < seeds.size(); ++i) CHECK(at::equal(draw(*model, config, request_of({seeds[i]}))[0], seven[i]));
      const std::vector<at::Tensor> backwards = draw(*model, config, request_of({46, 45, 44, 43, 42, 41, 40}));
      for (std::size_t i = 0; i < seeds.size(); ++i) CHECK(at::equal(backwards[6 - i], seven[i]));
      // Seeds that want the same row (44, 40, 48), seeds far apart, one twice.
      const std::vector<at::Tensor> mixed = draw(*model, config, request_of({44, 40, 48, 41, 18446744073709551615ULL, 44, 46}));
      CHECK(at::equal(mixed[0], seven[4]));
      CHECK(at::equal(mixed[1], seven[0]));
      CHECK(at::equal(mixed[3], seven[1]));
      CHECK(at::equal(mixed[5], seven[4]));
      CHECK(at::equal(mixed[6], seven[6]));
    }
  }
}

TEST_CASE("another batch size leaves the image the same but for rounding") {
  Config config = tiny_config();
  const auto model = tiny_model(config);
  const std::vector<at::Tensor> fours = draw(*model, config, request_of({7, 8, 9}));
  for (const std::int64_t batch_size : {1, 3, 16}) {
    config.sample.batch_size = batch_size;
    const std::vector<at::Tensor> others = draw(*model, config, request_of({7, 8, 9}));
    for (std::size_t i = 0; i < fours.size(); ++i) check_tensor("image", others[i], fours[i], 2e-5 * max_abs(fours[i]));
  }
}

TEST_CASE("images start from the noise of their own seeds and obey their labels; the sink has them in order") {
  Config config = tiny_config();
  config.sample.num_steps = 1;
  config.diffusion.prediction = "x0";
  const auto model = tiny_model(config);
  {
    // A network that predicts x0 = 0 leaves Euler's single step from t = 1 as a multiple of the initial noise.
    const torch::NoGradGuard no_grad;
    auto silent = tiny_model(config);
    for (const at::Tensor& parameter : silent->parameters()) parameter.zero_();
    config.sample.solver = "euler_ode";
    const std::vector<at::Tensor> images = draw(*silent, config, request_of({3, 12}));
    for (std::size_t i = 0; i < 2; ++i) {
      at::Tensor noise = torch::empty_like(images[i]);
      RandomStream(i == 0 ? 3 : 12, RandomPurpose::sample).fill_normal({noise.data_ptr<float>(), static_cast<std::size_t>(noise.numel())});
      const double factor = (images[i].flatten()[0] / noise.flatten()[0]).item<double>();
      REQUIRE(std::abs(factor) > 1e-3);
      check_tensor("multiple of the noise", images[i], noise * factor, 1e-5 * max_abs(images[i]));
    }
  }
  const GenerateRequest one = request_of({5}, {1}), other = request_of({5}, {2});
  CHECK_FALSE(at::equal(draw(*model, config, one)[0], draw(*model, config, other)[0]));
}

TEST_CASE("the report counts evaluations, progress counts images") {
  Config config = tiny_config();
  config.sample.num_steps = 6;
  const auto model = tiny_model(config);
  std::vector<std::int64_t> progress;
  std::size_t images = 0;
  const GenerateReport report = generate(
      *model, config, request_of({1, 2, 3, 4, 5, 6}), [&](std::size_t, const at::Tensor& image) {
        ++images;
        CHECK(image.sizes() == at::IntArrayRef({3, 6, 10}));
        CHECK_FALSE(image.requires_grad());
      },
      [&](std::int64_t done) { progress.push_back(done); });
  CHECK(report.nfe == 6);
  CHECK(report.seconds > 0);
  CHECK(images == 6);
  CHECK(progress.size() == 12);
  CHECK(std::is_sorted(progress.begin(), progress.end()));
  CHECK(progress.back() == 6);
}

TEST_CASE("an unconditional model draws without labels") {
  Config config = tiny_config();
  config.data.num_classes = 0;
  config.diffusion.label_dropout = 0;
  config.sample.guidance_scale = 1;
  const auto model = tiny_model(config);
  CHECK(draw(*model, config, request_of({1, 2, 3}, {})).size() == 3);
  CHECK(draw(*model, config, GenerateRequest()).empty());
  CHECK_THROWS_AS(draw(*model, config, request_of({1}, {0})), Error);
  config.sample.guidance_scale = 2;
  CHECK_THROWS_WITH(draw(*model, config, request_of({1}, {})), Catch::Contains("guidance_scale"));
}

TEST_CASE("requests that do not fit the model are refused") {
  Config config = tiny_config();
  const auto model = tiny_model(config);
  const auto message = [&](const GenerateRequest& request) -> std::string {
    try {
      generate(*model, config, request, [](std::size_t, const at::Tensor&) {});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK_THAT(message(request_of({1}, {5})), Catch::Contains("class 5") && Catch::Contains("0 ... 4"));
  CHECK_THAT(message(request_of({1}, {-1})), Catch::Contains("class -1"));
  CHECK_THAT(message(request_of({1, 2}, {})), Catch::Contains("label"));
  CHECK_THAT(message(request_of({1, 2}, {3})), Catch::Contains("1 for 2"));
  CHECK(message(request_of({1, 2}, {3, 4})).empty());
  config.sample.batch_size = 0;
  CHECK_THAT(message(request_of({1}, {0})), Catch::Contains("batch_size"));
  config = tiny_config();
  config.sample.solver = "ddmi";
  CHECK_THAT(message(request_of({1}, {0})), Catch::Contains("ddim"));

  config = tiny_config();
  config.diffusion.label_dropout = 0;
  const auto undropped = tiny_model(config);
  CHECK_THROWS_WITH(draw(*undropped, config, request_of({1}, {0})), Catch::Contains("label dropout"));
  config.sample.guidance_scale = 1;
  CHECK(draw(*undropped, config, request_of({1}, {0})).size() == 1);
}

TEST_CASE("guidance in one batch is guidance in two calls") {
  Config config = tiny_config();
  config.sample.guidance_interval = {0.5, 40};
  const auto model = tiny_model(config);
  const std::vector<at::Tensor> one = draw(*model, config, request_of({7, 8, 9}));
  config.sample.guidance_one_batch = false;
  const std::vector<at::Tensor> two = draw(*model, config, request_of({7, 8, 9}));
  for (std::size_t i = 0; i < one.size(); ++i) check_tensor("image", two[i], one[i], 2e-5 * max_abs(one[i]));
}

TEST_CASE("every schedule and prediction draws finite images with every solver that takes it") {
  Config config = tiny_config();
  for (const ScheduleRow& schedule : schedule_table()) {
    for (const Parameterisation& prediction : parameterisation_table()) {
      config.diffusion.schedule = schedule.name;
      config.diffusion.prediction = prediction.name;
      const auto model = tiny_model(config);
      for (const SolverRow& solver : solver_table()) {
        if (solver.end == SolverEnd::zero && !make_schedule(schedule.name)->unit_time()) continue;
        if (!solver.nfe) continue;  // an untrained network sends the adaptive solver to tiny steps
        INFO(schedule.name << " " << prediction.name << " " << solver.name);
        config.sample.solver = solver.name;
        CHECK(at::isfinite(draw(*model, config, request_of({1}))[0]).all().item<bool>());
      }
    }
  }
}

TEST_CASE("interpolation begins and ends at the images of its seeds and classes") {
  Config config = tiny_config();
  config.sample.solver = "ddim";
  const auto model = tiny_model(config);
  GenerateRequest request = request_of({3, 3, 3}, {1, 1, 1});
  request.other_seeds = {8, 8, 8};
  request.other_labels = {4, 4, 4};
  request.seed_share = request.label_share = {0, 0.5, 1};
  const std::vector<at::Tensor> images = draw(*model, config, request);
  const at::Tensor first = draw(*model, config, request_of({3}, {1}))[0], last = draw(*model, config, request_of({8}, {4}))[0];
  check_tensor("first", images[0], first, 5e-5 * max_abs(first));
  check_tensor("last", images[2], last, 5e-5 * max_abs(last));
  CHECK(max_abs(images[1] - first) > 1e-3);
  CHECK(max_abs(images[1] - last) > 1e-3);
  request.seed_share.pop_back();
  CHECK_THROWS_WITH(draw(*model, config, request), Catch::Contains("one share an image"));
}

TEST_CASE("a variation of little strength is near its image, and inpainting keeps what the mask keeps") {
  Config config = tiny_config();
  for (const std::string schedule : {"vp_linear", "edm", "flow"}) {
    INFO(schedule);
    config.diffusion.schedule = schedule;
    config.diffusion.prediction = schedule == "edm" ? "edm" : "v";
    config.sample.solver = "dpm_solver_pp_2m";
    const auto model = tiny_model(config);
    torch::manual_seed(1);
    GenerateRequest request = request_of({1, 2});
    request.image = torch::rand({3, 6, 10}) * 2 - 1;
    const auto distance = [&](double strength) {
      request.strength = strength;
      return max_abs(draw(*model, config, request)[0] - request.image);
    };
    CHECK(distance(0.03) < 0.25 * distance(0.9));
    request.strength = 1;
    request.mask = (torch::rand({1, 6, 10}) < 0.5).to(at::kFloat);
    const std::vector<at::Tensor> painted = draw(*model, config, request);
    const at::Tensor kept = request.mask.expand({3, 6, 10}) != 0;
    CHECK(at::equal(painted[0].masked_select(kept), request.image.masked_select(kept)));
    CHECK_FALSE(at::equal(painted[0].masked_select(kept.logical_not()), painted[1].masked_select(kept.logical_not())));
  }
  GenerateRequest request = request_of({1});
  request.strength = 0.5;
  const auto model = tiny_model(config);
  CHECK_THROWS_WITH(draw(*model, config, request), Catch::Contains("image"));
  request.image = torch::zeros({3, 10, 6});
  CHECK_THROWS_WITH(draw(*model, config, request), Catch::Contains("3 x 6 x 10"));
  request.image = torch::zeros({3, 6, 10});
  request.strength = 0;
  CHECK_THROWS_WITH(draw(*model, config, request), Catch::Contains("strength"));
}

TEST_CASE("a model guided by itself is not guided; another guide moves the image; a guide of other data is refused") {
  Config config = tiny_config();
  config.diffusion.label_dropout = 0;
  const auto model = tiny_model(config);
  config.sample.guidance_scale = 1;
  const at::Tensor plain = draw(*model, config, request_of({5}, {2}))[0];
  config.sample.guidance_scale = 2.5;
  GenerateRequest request = request_of({5}, {2});
  request.guide = {model.get(), config};
  check_tensor("guided by itself", draw(*model, config, request)[0], plain, 2e-5 * max_abs(plain));

  Config smaller = config;
  smaller.model.embed_dim = 12;
  smaller.diffusion.prediction = "v";
  const auto worse = tiny_model(smaller);
  request.guide = {worse.get(), smaller};
  CHECK(max_abs(draw(*model, config, request)[0] - plain) > 1e-3);

  smaller.diffusion.schedule = "flow";
  request.guide.config = smaller;
  CHECK_THROWS_WITH(draw(*model, config, request), Catch::Contains("flow"));
  smaller = config;
  smaller.data.num_classes = 4;
  const auto other = tiny_model(smaller);
  request.guide = {other.get(), smaller};
  CHECK_THROWS_WITH(draw(*model, config, request), Catch::Contains("classes"));
}

TEST_CASE("every call of the network is shown for every image, the last one's x0 the result") {
  Config config = tiny_config();
  config.sample.solver = "ddim";
  const auto model = tiny_model(config);
  GenerateRequest request = request_of({1, 2, 6});
  std::vector<std::vector<double>> times(3);
  std::vector<at::Tensor> last(3);
  request.on_call = [&](std::size_t index, double t, const at::Tensor& state, const at::Tensor& x0) {
    CHECK(state.sizes() == x0.sizes());
    times[index].push_back(t);
    last[index] = x0;
  };
  const std::vector<at::Tensor> images = draw(*model, config, request);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(times[i].size() == 3);
    CHECK(at::equal(last[i], images[i]));
  }
}

TEST_CASE("micro-batches place every image once, in the row of its seed, and consecutive seeds leave no gap") {
  for (const std::int64_t size : {1, 4, 7}) {
    for (const std::uint64_t first : {0ULL, 5ULL, 18446744073709551600ULL}) {
      std::vector<std::uint64_t> seeds;
      for (std::uint64_t i = 0; i < 15; ++i) seeds.push_back(first + i);
      const std::vector<MicroBatch> batches = plan_micro_batches(seeds, size);
      CHECK(static_cast<std::int64_t>(batches.size()) == (15 + size - 1) / size);
      std::set<std::int64_t> placed;
      for (const MicroBatch& batch : batches) {
        REQUIRE(static_cast<std::int64_t>(batch.rows.size()) == size);
        for (std::size_t row = 0; row < batch.rows.size(); ++row) {
          if (batch.rows[row] == MicroBatch::kPadding) continue;
          CHECK(placed.insert(batch.rows[row]).second);
          CHECK(seeds[static_cast<std::size_t>(batch.rows[row])] % static_cast<std::uint64_t>(size) == row);
        }
      }
      CHECK(placed.size() == seeds.size());
    }
  }
}
