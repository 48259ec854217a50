// An NVIDIA GPU: one stream of the CUDA runtime.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <string>

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
  StatusOr<std::unique_ptr<Recording>> Record(const std::function<void()>& give) override;
  void Replay(const Recording& recording) override;

  const cudaDeviceProp& properties() const { return properties_; }
  // For launches; the calling thread uses this device from here on.
  cudaStream_t stream();
  // Keeps the first error, which Synchronize returns from then on.
  void Note(cudaError_t error, const char* what);
  void NoteFailure(Status status);

 private:
  CudaDevice(int ordinal, const cudaDeviceProp& properties)
      : ordinal_(ordinal), properties_(properties) {}
  void Free(uint8_t* data, bool host) override;

  const int ordinal_;
  const cudaDeviceProp properties_;
  cudaStream_t stream_ = nullptr;
  Status failure_;
};

}  // namespace kvasir::device
