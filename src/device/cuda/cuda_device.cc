#include "device/cuda/cuda_device.h"

#include <fmt/format.h>

namespace kvasir::device {
namespace {

class CudaRecording final : public Recording {
 public:
  explicit CudaRecording(cudaGraphExec_t graph) : graph_(graph) {}
  ~CudaRecording() override { cudaGraphExecDestroy(graph_); }
  cudaGraphExec_t graph() const { return graph_; }

 private:
  cudaGraphExec_t graph_;
};

}  // namespace

StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Open(int ordinal) {
  const auto fail = [](const std::string& why) {
    return absl::FailedPreconditionError("device 'cuda': " + why);
  };
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    return fail(cudaGetErrorString(error));
  }
  if (ordinal >= count) return fail(fmt::format("there is no number {}, but {}", ordinal, count));
  cudaDeviceProp properties;
  cudaStream_t stream = nullptr;
  cudaError_t error = cudaGetDeviceProperties(&properties, ordinal);
  if (error == cudaSuccess) error = cudaSetDevice(ordinal);
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) return fail(cudaGetErrorString(error));
  std::unique_ptr<CudaDevice> out(new CudaDevice(ordinal, properties));
  out->stream_ = stream;
  return out;
}

CudaDevice::~CudaDevice() {
  cudaSetDevice(ordinal_);
  cudaStreamDestroy(stream_);
}

cudaStream_t CudaDevice::stream() {
  cudaSetDevice(ordinal_);
  return stream_;
}

int64_t CudaDevice::free_memory() const {
  size_t free = 0, total = 0;
  cudaSetDevice(ordinal_);
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return 0;
  return static_cast<int64_t>(free);
}

StatusOr<DeviceMemory> CudaDevice::Allocate(int64_t bytes) {
  if (bytes == 0) return DeviceMemory();
  void* data = nullptr;
  const cudaStream_t stream = this->stream();
  if (const cudaError_t error = cudaMalloc(&data, bytes); error != cudaSuccess) {
    cudaGetLastError();  // an allocation that fails leaves the device usable
    return absl::ResourceExhaustedError(
        fmt::format("device '{}': cannot allocate {} MiB, {} MiB are free: {}", name(), bytes >> 20,
                    free_memory() >> 20, cudaGetErrorString(error)));
  }
  Note(cudaMemsetAsync(data, 0, bytes, stream), "clearing memory");
  return DeviceMemory(this, static_cast<uint8_t*>(data), bytes, false);
}

StatusOr<DeviceMemory> CudaDevice::AllocateHost(int64_t bytes) {
  if (bytes == 0) return DeviceMemory();
  void* data = nullptr;
  cudaSetDevice(ordinal_);
  if (const cudaError_t error = cudaHostAlloc(&data, bytes, cudaHostAllocDefault);
      error != cudaSuccess) {
    cudaGetLastError();
    return absl::ResourceExhaustedError(fmt::format("cannot pin {} MiB of host memory: {}",
                                                    bytes >> 20, cudaGetErrorString(error)));
  }
  return DeviceMemory(this, static_cast<uint8_t*>(data), bytes, true);
}

void CudaDevice::Free(uint8_t* data, bool host) {
  cudaSetDevice(ordinal_);
  if (host) {
    cudaFreeHost(data);
  } else {
    cudaFree(data);
  }
}

void CudaDevice::CopyIn(void* to, const void* host, int64_t bytes) {
  Note(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, stream()), "copying in");
}

void CudaDevice::CopyOut(void* host, const void* from, int64_t bytes) {
  Note(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream()), "copying out");
}

void CudaDevice::CopyWithin(void* to, const void* from, int64_t bytes) {
  Note(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream()), "copying");
}

void CudaDevice::Note(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  NoteFailure(absl::InternalError(
      fmt::format("device '{}' failed while {}: {}", name(), what, cudaGetErrorString(error))));
}

void CudaDevice::NoteFailure(Status status) {
  if (failure_.ok()) failure_ = std::move(status);
}

Status CudaDevice::Synchronize() {
  Note(cudaStreamSynchronize(stream()), "computing");
  return failure_;
}

StatusOr<std::unique_ptr<Recording>> CudaDevice::Record(const std::function<void()>& give) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  Note(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal), "recording");
  give();
  Note(cudaStreamEndCapture(stream(), &graph), "recording");
  if (failure_.ok()) Note(cudaGraphInstantiate(&executable, graph, 0), "recording");
  if (graph != nullptr) cudaGraphDestroy(graph);
  KVASIR_RETURN_IF_ERROR(failure_);
  return std::make_unique<CudaRecording>(executable);
}

void CudaDevice::Replay(const Recording& recording) {
  Note(cudaGraphLaunch(static_cast<const CudaRecording&>(recording).graph(), stream()),
       "launching");
}

}  // namespace kvasir::device
