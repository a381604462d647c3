#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "distributed/launch.h"

namespace c10d {
class ProcessGroup;
}

namespace uvit {

/// Another process is gone, or does not answer. Secondary: the process that failed says why.
class PeerError : public Error {
 public:
  using Error::Error;
};

/// The processes that work on one task together (c10d: TCPStore, gloo for tensors on the CPU, NCCL for those on a GPU). Every call is collective unless
/// it says otherwise: all processes make the same calls in the same order. A process that is alone makes none of the connections, and every call
/// returns at once. What fails throws PeerError, after which the group is of no use.
class ProcessGroup {
 public:
  ProcessGroup();  ///< alone
  /// Meets the others, at most `timeout_s` seconds long; later calls wait as long for them. @param cuda  whether tensors on GPUs are exchanged too
  ProcessGroup(const Launch& launch, double timeout_s, bool cuda);
  ~ProcessGroup();
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  int rank() const { return launch_.rank; }
  int size() const { return launch_.world; }
  bool alone() const { return launch_.alone(); }
  bool is_first() const { return launch_.rank == 0; }
  const Launch& launch() const { return launch_; }

  void barrier();
  /// Rank `from`'s values, in every process's tensors of the same shapes.
  void broadcast(const std::vector<at::Tensor>& tensors, int from = 0);
  std::string broadcast(const std::string& text);
  /// Sum over processes, in place.
  void sum(at::Tensor& tensor);
  /// Whether it is true in any process.
  bool any(bool flag);
  /// Every process's tensor, of one shape, in the order of ranks.
  std::vector<at::Tensor> all_gather(const at::Tensor& tensor);
  std::vector<std::string> all_gather(const std::string& text);
  /// Between two processes; the others do nothing. Tensors are contiguous.
  void send(const at::Tensor& tensor, int to);
  void receive(at::Tensor& tensor, int from);
  /// Rank 0 works, as long as it takes; the others wait, and find out when it is gone. What `work` throws, it throws in rank 0.
  void first_alone(const std::function<void()>& work);

  /// Throws PeerError where `error` is one of communication, with the ranks that are silent named where the others can tell; else returns.
  void check_communication(const std::exception& error);

  /// c10d's own; null when alone.
  c10::intrusive_ptr<c10d::ProcessGroup> handle() const;

 private:
  template <class Call>
  void guarded(Call&& call);
  [[noreturn]] void throw_peer_error(const std::exception& error);
  void sum_in_place(const at::Tensor& tensor);
  struct State;
  Launch launch_;
  std::unique_ptr<State> state_;
};

}  // namespace uvit
