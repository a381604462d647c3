#include <torch/torch.h>

#include "distributed/process_group.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cstdlib>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/comm.hpp>

#include "distributed/backends.h"

#ifdef UVIT_HAS_CUDA
#include "distributed/cuda/nccl_backend.h"
#endif

namespace uvit {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

/// The first line of what LibTorch or gloo says, without the place in their source.
std::string reason_of(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  std::string text = torch_error ? torch_error->what_without_backtrace() : error.what();
  text = text.substr(0, text.find('\n'));
  if (const std::size_t place = text.find("] "); text.starts_with('[') && place != std::string::npos) text = text.substr(place + 2);
  if (const std::size_t advice = text.find(". This "); advice != std::string::npos) text = text.substr(0, advice);
  return text;
}

/// Runs `call` in a thread of its own and waits for it no longer than `limit`: a store whose host hangs never answers. @return whether it came back
/// without throwing. `call` must own what it uses, since it may outlive this function.
bool finishes_within(milliseconds limit, std::function<void()> call) {
  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false, good = false;
  };
  const auto shared = std::make_shared<Shared>();
  std::thread([shared, call = std::move(call)] {
    bool good = true;
    try {
      call();
    } catch (const std::exception&) {
      good = false;
    }
    const std::lock_guard lock(shared->mutex);
    shared->done = true;
    shared->good = good;
    shared->changed.notify_all();
  }).detach();
  std::unique_lock lock(shared->mutex);
  return shared->changed.wait_for(lock, limit, [&] { return shared->done; }) && shared->good;
}

c10::intrusive_ptr<c10d::Store> connect_store(const Launch& launch, milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(launch.master_port);
  options.numWorkers = static_cast<std::size_t>(launch.world);
  options.timeout = timeout;
  options.isServer = launch.rank == 0 && !launch.agent_store;
  options.waitWorkers = !launch.agent_store;
  if (launch.store_fd >= 0 && options.isServer) options.masterListenFd = launch.store_fd;
  try {
    const auto store = c10::make_intrusive<c10d::TCPStore>(launch.master_addr, options);
    // Keys of their own after each elastic restart: the addresses that the dead processes left in the agent's store lead nowhere.
    return c10::make_intrusive<c10d::PrefixStore>(fmt::format("uvit/{}", launch.restarts), store);
  } catch (const std::exception& error) {
    const std::string reason = reason_of(error);
    if (reason.find("EADDRINUSE") != std::string::npos)
      throw Error(fmt::format("port {} of this machine is taken: set MASTER_PORT to a free one", launch.master_port));
    throw Error(fmt::format("rank {} of {} did not meet the others at {}:{} within {} s ({}): start all of them, with one MASTER_ADDR and MASTER_PORT",
                            launch.rank, launch.world, launch.master_addr, launch.master_port, static_cast<double>(timeout.count()) / 1000, reason));
  }
}

}  // namespace

struct ProcessGroup::State {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  milliseconds timeout{};
  bool failed = false;
};

ProcessGroup::ProcessGroup() = default;

ProcessGroup::ProcessGroup(const Launch& launch, double timeout_s, [[maybe_unused]] bool cuda) : launch_(launch) {
  if (alone()) return;
  // c10d prints its own errors with their call stacks; each reaches us as an exception, and the user as one line.
  if (!std::getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = 3;
  state_ = std::make_unique<State>();
  state_->timeout = milliseconds(static_cast<std::int64_t>(timeout_s * 1000));
  state_->store = connect_store(launch, state_->timeout);
  guarded([&] {
    using Group = c10d::ProcessGroup;
    state_->group = c10::make_intrusive<Group>(state_->store, rank(), size());
    state_->group->setDefaultBackend(Group::GLOO);
    state_->group->setBackend(c10::DeviceType::CPU, Group::GLOO,
                              make_gloo_backend(state_->store, rank(), size(), launch.master_addr, state_->timeout));
#ifdef UVIT_HAS_CUDA
    if (cuda)
      state_->group->setBackend(c10::DeviceType::CUDA, Group::NCCL,
                                make_nccl_backend(c10::make_intrusive<c10d::PrefixStore>("nccl", state_->store), rank(), size(), state_->timeout));
#endif
  });
}

/// After a failure the connections are left to the end of the process: the destructors of c10d wait for work that will never be done.
ProcessGroup::~ProcessGroup() {
  if (state_ && state_->failed) static_cast<void>(state_.release());
}

c10::intrusive_ptr<c10d::ProcessGroup> ProcessGroup::handle() const { return state_ ? state_->group : nullptr; }

template <class Call>
void ProcessGroup::guarded(Call&& call) {
  if (alone()) return;
  try {
    const torch::NoGradGuard no_grad;
    call();
  } catch (const std::exception& error) {
    throw_peer_error(error);
  }
}

void ProcessGroup::throw_peer_error(const std::exception& error) {
  state_->failed = true;
  const auto present = std::make_shared<std::vector<bool>>(static_cast<std::size_t>(size()), false);
  // Who is left says so in the store; who does not is the one that is missing.
  const bool answered = finishes_within(milliseconds(1500), [present, store = state_->store, rank = rank(), size = size()] {
    const auto key = [](int r) { return fmt::format("survivor/{}", r); };
    store->set(key(rank), std::vector<std::uint8_t>{1});
    std::this_thread::sleep_for(milliseconds(500));
    for (int r = 0; r < size; ++r) (*present)[static_cast<std::size_t>(r)] = store->check({key(r)});
  });
  std::vector<int> missing;
  for (int r = 0; answered && r < size(); ++r)
    if (!(*present)[static_cast<std::size_t>(r)]) missing.push_back(r);
  if (!answered && !launch_.agent_store && rank() != 0) missing = {0};
  const std::string who = missing.empty() ? "another process" : fmt::format("rank {}", fmt::join(missing, ", "));
  throw PeerError(fmt::format("{} is gone or does not answer ({})", who, reason_of(error)));
}

void ProcessGroup::check_communication(const std::exception& error) {
  if (alone() || dynamic_cast<const PeerError*>(&error)) return;
  const std::string text = error.what();
  for (const char* mark : {"gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Timed out waiting"})
    if (text.find(mark) != std::string::npos) throw_peer_error(error);
}

void ProcessGroup::barrier() {
  guarded([&] {
    at::Tensor one = at::ones({1}, at::kInt);
    sum_in_place(one);
  });
}

void ProcessGroup::broadcast(const std::vector<at::Tensor>& tensors, int from) {
  constexpr std::size_t kBufferBytes = 64 << 20;
  if (tensors.empty()) return;
  guarded([&] {
    std::vector<at::Tensor> values;
    for (const at::Tensor& tensor : tensors) values.push_back(tensor.detach());
    c10d::broadcast_coalesced(state_->group, values, kBufferBytes, from);
  });
}

std::string ProcessGroup::broadcast(const std::string& text) {
  if (alone()) return text;
  at::Tensor length = at::full({1}, static_cast<std::int64_t>(text.size()), at::kLong);
  broadcast({length});
  at::Tensor bytes = at::zeros({length.item<std::int64_t>()}, at::kByte);
  if (is_first()) std::copy(text.begin(), text.end(), bytes.data_ptr<std::uint8_t>());
  if (bytes.numel() > 0) broadcast({bytes});
  return std::string(reinterpret_cast<const char*>(bytes.const_data_ptr<std::uint8_t>()), static_cast<std::size_t>(bytes.numel()));
}

void ProcessGroup::sum_in_place(const at::Tensor& tensor) {
  std::vector<at::Tensor> values{tensor.detach()};
  state_->group->allreduce(values)->wait();
}

void ProcessGroup::sum(at::Tensor& tensor) {
  guarded([&] { sum_in_place(tensor); });
}

bool ProcessGroup::any(bool flag) {
  if (alone()) return flag;
  at::Tensor votes = at::full({1}, flag ? 1 : 0, at::kInt);
  sum(votes);
  return votes.item<int>() > 0;
}

std::vector<at::Tensor> ProcessGroup::all_gather(const at::Tensor& tensor) {
  if (alone()) return {tensor};
  std::vector<std::vector<at::Tensor>> all(1);
  guarded([&] {
    std::vector<at::Tensor> own{tensor.detach().contiguous()};
    for (int r = 0; r < size(); ++r) all[0].push_back(at::empty_like(own[0]));
    state_->group->allgather(all, own)->wait();
  });
  return all[0];
}

std::vector<std::string> ProcessGroup::all_gather(const std::string& text) {
  if (alone()) return {text};
  const std::vector<at::Tensor> lengths = all_gather(at::full({1}, static_cast<std::int64_t>(text.size()), at::kLong));
  std::int64_t longest = 1;
  for (const at::Tensor& length : lengths) longest = std::max(longest, length.item<std::int64_t>());
  at::Tensor bytes = at::zeros({longest}, at::kByte);
  std::copy(text.begin(), text.end(), bytes.data_ptr<std::uint8_t>());
  const std::vector<at::Tensor> all = all_gather(bytes);
  std::vector<std::string> texts;
  for (std::size_t r = 0; r < all.size(); ++r)
    texts.emplace_back(reinterpret_cast<const char*>(all[r].const_data_ptr<std::uint8_t>()), static_cast<std::size_t>(lengths[r].item<std::int64_t>()));
  return texts;
}

void ProcessGroup::send(const at::Tensor& tensor, int to) {
  guarded([&] {
    std::vector<at::Tensor> values{tensor.detach()};
    state_->group->send(values, to, 0)->wait();
  });
}

void ProcessGroup::receive(at::Tensor& tensor, int from) {
  guarded([&] {
    std::vector<at::Tensor> values{tensor.detach()};
    state_->group->recv(values, from, 0)->wait();
  });
}

namespace {

/// Calls `beat` from a thread of its own every `interval`, until it is destroyed.
class Heartbeat {
 public:
  Heartbeat(milliseconds interval, std::function<void()> beat)
      : thread_([this, interval, beat = std::move(beat)] {
          std::unique_lock lock(mutex_);
          while (!stopped_.wait_for(lock, interval, [this] { return stop_; })) {
            try {
              beat();
            } catch (const std::exception&) {
              return;  // the next call of the group finds out
            }
          }
        }) {}
  ~Heartbeat() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    stopped_.notify_all();
    thread_.join();
  }
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;
  std::thread thread_;  // last: it uses the rest
};

}  // namespace

void ProcessGroup::first_alone(const std::function<void()>& work) {
  if (alone()) return work();
  if (!is_first()) {  // one message a heartbeat, the last one a 1; each wait for a message has the group's timeout
    at::Tensor done = at::zeros({1}, at::kInt);
    while (done.item<int>() == 0) receive(done, 0);
    return;
  }
  const auto tell_all = [&](int done) {
    std::vector<at::Tensor> values{at::full({1}, done, at::kInt)};
    for (int r = 1; r < size(); ++r) state_->group->send(values, r, 0)->wait();
  };
  {
    const Heartbeat heartbeat(std::min(milliseconds(5000), state_->timeout / 3), [&] { tell_all(0); });
    work();
  }
  guarded([&] { tell_all(1); });
}

}  // namespace uvit
