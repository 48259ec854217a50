// An NVIDIA GPU: a stream of the CUDA runtime for orders, and one for the transfers of each
// direction.
#pragma once

#include <cuda_runtime_api.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "device/device.h"

namespace kvasir::device {

class CudaDevice final : public Device {
 public:
  // FailedPrecondition: no driver, or no such device.
  static StatusOr<std::unique_ptr<CudaDevice>> Open(int ordinal);
  ~CudaDevice() override;

  std::string name() const override { return properties_.name; }
  int64_t free_memory() const override;
  StatusOr<DeviceMemory> Allocate(int64_t bytes) override;
  StatusOr<DeviceMemory> AllocateHost(int64_t bytes) override;
  void CopyIn(void* to, const void* host, int64_t bytes) override;
  void CopyOut(void* host, const void* from, int64_t bytes) override;
  void CopyWithin(void* to, const void* from, int64_t bytes) override;
  Status Synchronize() override;
  Transfer TransferIn(absl::Span<const Piece> pieces) override { return Give(true, pieces); }
  Transfer TransferOut(absl::Span<const Piece> pieces) override { return Give(false, pieces); }
  bool HasEnded(Transfer transfer) override;
  Status Await(Transfer transfer) override;
  void OrderAfter(Transfer transfer) override;
  Status failure() const override { return failure_; }
  StatusOr<std::unique_ptr<Recording>> Record(const std::function<void()>& give) override;
  void Replay(const Recording& recording) override;

  const cudaDeviceProp& properties() const { return properties_; }
  // For launches; the calling thread uses this device from here on.
  cudaStream_t stream();
  // Keeps the first error, which Synchronize returns from then on.
  void Note(cudaError_t error, const char* what);
  void NoteFailure(Status status);

 private:
  // Transfers of one direction, in their order.
  struct Lane {
    cudaStream_t stream = nullptr;
    std::deque<std::pair<int64_t, cudaEvent_t>> under_way;  // each with what marks its end
    int64_t given = 0;
    int64_t ended = 0;
  };

  CudaDevice(int ordinal, const cudaDeviceProp& properties)
      : ordinal_(ordinal), properties_(properties) {}
  void Free(uint8_t* data, bool host) override;
  Lane& LaneOf(Transfer transfer) { return transfer.in ? in_ : out_; }
  Transfer Give(bool in, absl::Span<const Piece> pieces);
  bool CopySmall(void* to, const void* from, const void* host, int64_t bytes);
  cudaEvent_t TakeEvent();
  cudaEvent_t EndOf(Transfer transfer);  // null: it has ended
  void Reap(Lane& lane);

  const int ordinal_;
  const cudaDeviceProp properties_;
  cudaStream_t stream_ = nullptr;
  Lane in_, out_;
  cudaEvent_t ordered_ = nullptr;             // what a transfer waits for
  std::vector<cudaEvent_t> events_;           // not in use
  std::map<const uint8_t*, int64_t> pinned_;  // sizes of AllocateHost's memory
  Status failure_;
};

}  // namespace kvasir::device
