#include <torch/torch.h>

#include <arpa/inet.h>
#include <sys/socket.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <functional>
#include <thread>

#include "distributed/fixed_tree.h"
#include "distributed/gradient_reducer.h"
#include "distributed/replicas.h"

using namespace uvit;

namespace {

/// Runs `body` as every one of `size` processes, each in a thread of its own, connected over loopback. @return what each threw, "" for nothing
std::vector<std::string> as_processes(int size, const std::function<void(ProcessGroup&)>& body, double timeout_s = 20) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  std::vector<std::string> errors(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  std::atomic<int> inside = size;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      Launch launch;
      launch.rank = rank;
      launch.world = size;
      launch.master_port = ntohs(address.sin_port);
      launch.store_fd = fd;
      try {
        ProcessGroup processes(launch, timeout_s, false);
        try {
          body(processes);
        } catch (const std::exception& error) {
          errors[static_cast<std::size_t>(rank)] = error.what();
        }
        --inside;
        while (inside > 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));  // rank 0 has the store of all
      } catch (const std::exception& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return errors;
}

bool none(const std::vector<std::string>& errors) {
  for (const std::string& error : errors) {
    UNSCOPED_INFO(error);
    if (!error.empty()) return false;
  }
  return true;
}

at::Tensor random_values(std::int64_t n, std::int64_t seed) { return torch::sin(torch::arange(n, at::kFloat) * static_cast<double>(seed + 1) * 1.7) * 3; }

/// Bits of the sum of 12 values: computed by `size` processes, each with its block.
at::Tensor tree_sum(int size) {
  std::vector<at::Tensor> results(static_cast<std::size_t>(size));
  const auto body = [&](ProcessGroup& processes) {
    const std::int64_t share = 12 / size;
    FixedTree tree(share);
    for (std::int64_t i = 0; i < share; ++i) tree.add(random_values(1001, processes.rank() * share + i).clone());
    at::Tensor sum = tree.take();
    sum_along_ranks(processes, sum);
    results[static_cast<std::size_t>(processes.rank())] = sum;
  };
  if (size == 1) {
    ProcessGroup alone;
    body(alone);
  } else {
    REQUIRE(none(as_processes(size, body)));
  }
  for (const at::Tensor& result : results) CHECK(at::equal(result, results[0]));
  return results[0];
}

}  // namespace

TEST_CASE("the fixed tree's sum has the same bits in 1, 2 and 4 processes") {
  const at::Tensor one = tree_sum(1);
  at::Tensor exact = at::zeros({1001}, at::kDouble);
  for (std::int64_t i = 0; i < 12; ++i) exact += random_values(1001, i);
  CHECK((one - exact).abs().max().item<double>() < 1e-5);
  CHECK(at::equal(tree_sum(2), one));
  CHECK(at::equal(tree_sum(4), one));
}

TEST_CASE("the fixed tree adds neighbours, after runs of the odd part") {
  const auto value = [](double x) { return at::full({1}, x, at::kFloat); };
  FixedTree tree(6);  // (a + b + c) + (d + e + f)
  // In float: (1e8 + 1 + 1) loses both ones, 1 + 1 + 1e8 does not.
  for (const double x : {1e8, 1.0, 1.0, 4.0, 4.0, 1e8}) tree.add(value(x));
  CHECK(tree.take().item<float>() == (1e8f + 1.0f + 1.0f) + (4.0f + 4.0f + 1e8f));
  FixedTree pairs(4);  // (a + b) + (c + d), and again
  for (int again = 0; again < 2; ++again) {
    for (const double x : {1e8, 4.0, 4.0, -1e8}) pairs.add(value(x));
    CHECK(pairs.take().item<float>() == (1e8f + 4.0f) + (4.0f + -1e8f));
  }
  CHECK_THROWS(pairs.take());
}

TEST_CASE("collectives over three processes") {
  CHECK(none(as_processes(3, [](ProcessGroup& processes) {
    const int rank = processes.rank();
    at::Tensor tensor = at::full({5}, rank + 1, at::kFloat);
    processes.sum(tensor);
    if (tensor[4].item<float>() != 6) throw std::runtime_error("sum");
    if (!processes.any(rank == 2) || processes.any(false)) throw std::runtime_error("any");
    at::Tensor root = at::full({2, 2}, rank, at::kLong);
    processes.broadcast({root}, 1);
    if (root.sum().item<std::int64_t>() != 4) throw std::runtime_error("broadcast");
    const std::string text = std::string(static_cast<std::size_t>(rank), 'x') + "end";
    if (processes.all_gather(text) != std::vector<std::string>{"end", "xend", "xxend"}) throw std::runtime_error("all_gather");
    if (processes.broadcast(text) != "end" || !processes.broadcast(rank == 0 ? std::string() : "no").empty()) throw std::runtime_error("broadcast text");
    processes.barrier();
  })));
}

TEST_CASE("named tensors go from rank 0 to all, and from all to rank 0") {
  using Named = std::vector<std::pair<std::string, at::Tensor>>;
  CHECK(none(as_processes(3, [](ProcessGroup& processes) {
    const int rank = processes.rank();
    Named mine;
    if (rank == 0) mine = {{"a", at::full({2, 3}, 7.0, at::kFloat)}, {"n", at::scalar_tensor(12, at::kLong)}};
    const Named got = broadcast_named(processes, mine);
    if (got.size() != 2 || got[0].first != "a" || got[1].second.item<std::int64_t>() != 12 || got[0].second.sum().item<float>() != 42)
      throw std::runtime_error("broadcast_named");
    const Named all = gather_named(processes, {{"r" + std::to_string(rank), at::full({rank + 1}, rank, at::kDouble)}});
    if (all.size() != (rank == 0 ? 3u : 0u)) throw std::runtime_error("gather_named: size");
    if (rank == 0 && (all[2].first != "r2" || all[2].second.sum().item<double>() != 6)) throw std::runtime_error("gather_named");
  })));
}

TEST_CASE("processes that hold different parameters are named, with the parameter") {
  const std::vector<std::string> errors = as_processes(3, [](ProcessGroup& processes) {
    const at::Tensor same = at::ones({4}), other = processes.rank() == 1 ? at::full({4}, 1.0000001) : at::ones({4});
    check_equal_replicas(processes, {{"same", same}}, 1);
    check_equal_replicas(processes, {{"same", same}, {"other.weight", other}}, 2);
  });
  for (const std::string& error : errors) {
    CHECK(error.find("after step 2") != std::string::npos);
    CHECK(error.find("rank 0, 2") != std::string::npos);
    CHECK(error.find("rank 1") != std::string::npos);
    CHECK(error.find("'other.weight'") != std::string::npos);
  }
}

TEST_CASE("the others wait while rank 0 works longer than the timeout, and find out when it throws") {
  std::atomic<bool> worked = false;
  CHECK(none(as_processes(2, [&](ProcessGroup& processes) {
    processes.first_alone([&] {
      if (processes.rank() != 0) throw std::runtime_error("not rank 0");
      std::this_thread::sleep_for(std::chrono::milliseconds(2500));
      worked = true;
    });
    if (!worked) throw std::runtime_error("did not wait");
  }, 1)));
}

TEST_CASE("a process that does not answer is named when the time is over") {
  const std::vector<std::string> errors = as_processes(3, [](ProcessGroup& processes) {
    if (processes.rank() == 2) return std::this_thread::sleep_for(std::chrono::seconds(4));
    processes.barrier();
  }, 1);
  for (int rank : {0, 1}) {
    INFO(errors[static_cast<std::size_t>(rank)]);
    CHECK(errors[static_cast<std::size_t>(rank)].find("rank 2 is gone or does not answer") != std::string::npos);
  }
}

TEST_CASE("gradients over two processes are those of one, with the reducer and its buckets") {
  const auto gradients_of = [](ProcessGroup& processes, std::int64_t steps) {
    at::Tensor a = random_values(1200, 1).view({40, 30}).set_requires_grad(true), b = random_values(30, 2).set_requires_grad(true);
    const at::Tensor unused = random_values(7, 3).set_requires_grad(true);
    const auto sum = make_gradient_sum(processes, {{"a", a}, {"b", b}, {"unused", unused}}, false, 2);
    for (std::int64_t step = 0; step < steps; ++step) {
      for (at::Tensor* parameter : {&a, &b}) parameter->mutable_grad().reset();
      const std::int64_t share = 8 / processes.size();
      for (std::int64_t half = 0; half < 2; ++half) {
        const at::Tensor x = torch::sin(torch::arange(8 * 30, at::kFloat).view({8, 30}) * static_cast<double>(step + 1))
                                 .narrow(0, processes.rank() * share + half * share / 2, share / 2);
        sum->backward((x * b).matmul(a.t()).square().sum(), half == 1);
      }
    }
    if (unused.grad().defined()) throw std::runtime_error("a gradient where the loss does not reach");
    return std::vector<at::Tensor>{a.grad().clone(), b.grad().clone()};
  };
  ProcessGroup alone;
  for (const std::int64_t steps : {1, 2, 4}) {
    const std::vector<at::Tensor> exact = gradients_of(alone, steps);
    CHECK(none(as_processes(2, [&](ProcessGroup& processes) {
      const std::vector<at::Tensor> got = gradients_of(processes, steps);
      for (std::size_t i = 0; i < got.size(); ++i)
        if ((got[i] - exact[i]).abs().max().item<double>() > 1e-6 * exact[i].abs().max().item<double>()) throw std::runtime_error("other gradients");
    })));
  }
}

TEST_CASE("shares of parameters are contiguous, whole and even") {
  CHECK(even_shares({10, 10, 10, 10}, 1) == std::vector<std::size_t>{0, 4});
  CHECK(even_shares({10, 10, 10, 10}, 2) == std::vector<std::size_t>{0, 2, 4});
  CHECK(even_shares({10, 10, 10, 10}, 4) == std::vector<std::size_t>{0, 1, 2, 3, 4});
  CHECK(even_shares({100, 1, 1}, 3) == std::vector<std::size_t>{0, 0, 1, 3});
  CHECK(even_shares({1, 1, 1, 97}, 2) == std::vector<std::size_t>{0, 3, 4});
}
