#include "device/cuda/cuda_device.h"

#include <fmt/format.h>

#include "device/cuda/copy.h"

namespace kvasir::device {
namespace {

// Copies up to this size are made by a kernel.
constexpr int64_t kSmallCopy = int64_t{256} << 10;

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
  cudaError_t error = cudaGetDeviceProperties(&properties, ordinal);
  if (error == cudaSuccess) error = cudaSetDevice(ordinal);
  if (error != cudaSuccess) return fail(cudaGetErrorString(error));
  std::unique_ptr<CudaDevice> out(new CudaDevice(ordinal, properties));
  for (cudaStream_t* stream : {&out->stream_, &out->in_.stream, &out->out_.stream}) {
    if (error == cudaSuccess) error = cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking);
  }
  if (error == cudaSuccess) {
    error = cudaEventCreateWithFlags(&out->ordered_, cudaEventDisableTiming);
  }
  if (error != cudaSuccess) return fail(cudaGetErrorString(error));
  return out;
}

CudaDevice::~CudaDevice() {
  cudaSetDevice(ordinal_);
  for (Lane* lane : {&in_, &out_}) {
    for (const auto& [number, end] : lane->under_way) cudaEventDestroy(end);
  }
  for (const cudaEvent_t event : events_) cudaEventDestroy(event);
  if (ordered_ != nullptr) cudaEventDestroy(ordered_);
  for (const cudaStream_t stream : {stream_, in_.stream, out_.stream}) {
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
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
  pinned_[static_cast<uint8_t*>(data)] = bytes;
  return DeviceMemory(this, static_cast<uint8_t*>(data), bytes, true);
}

void CudaDevice::Free(uint8_t* data, bool host) {
  cudaSetDevice(ordinal_);
  if (host) {
    pinned_.erase(data);
    cudaFreeHost(data);
  } else {
    cudaFree(data);
  }
}

// The copy engines serve all streams in turn, so what a step brings and takes would wait for the
// transfers of blocks.
bool CudaDevice::CopySmall(void* to, const void* from, const void* host, int64_t bytes) {
  const auto* const begin = static_cast<const uint8_t*>(host);
  auto it = pinned_.upper_bound(begin);
  if (bytes == 0 || bytes > kSmallCopy || it == pinned_.begin()) return false;
  --it;
  if (begin + bytes > it->first + it->second) return false;
  LaunchCopy(stream(), to, from, bytes);
  Note(cudaGetLastError(), "copying");
  return true;
}

void CudaDevice::CopyIn(void* to, const void* host, int64_t bytes) {
  if (CopySmall(to, host, host, bytes)) return;
  Note(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, stream()), "copying in");
}

void CudaDevice::CopyOut(void* host, const void* from, int64_t bytes) {
  if (CopySmall(host, from, host, bytes)) return;
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

Transfer CudaDevice::Give(bool in, absl::Span<const Piece> pieces) {
  Lane& lane = in ? in_ : out_;
  Reap(lane);
  const cudaEvent_t end = TakeEvent();
  Note(cudaEventRecord(ordered_, stream()), "giving a transfer");
  Note(cudaStreamWaitEvent(lane.stream, ordered_), "giving a transfer");
  for (const Piece& piece : pieces) {
    Note(cudaMemcpyAsync(piece.to, piece.from, piece.bytes,
                         in ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost, lane.stream),
         "giving a transfer");
  }
  Note(cudaEventRecord(end, lane.stream), "giving a transfer");
  lane.under_way.emplace_back(++lane.given, end);
  return {in, lane.given};
}

cudaEvent_t CudaDevice::TakeEvent() {
  cudaEvent_t event = nullptr;
  if (events_.empty()) {
    Note(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "giving a transfer");
    return event;
  }
  event = events_.back();
  events_.pop_back();
  return event;
}

void CudaDevice::Reap(Lane& lane) {
  while (!lane.under_way.empty()) {
    const auto [number, end] = lane.under_way.front();
    const cudaError_t error = cudaEventQuery(end);
    if (error == cudaErrorNotReady) return;
    Note(error, "transferring");
    events_.push_back(end);
    lane.ended = number;
    lane.under_way.pop_front();
  }
}

cudaEvent_t CudaDevice::EndOf(Transfer transfer) {
  cudaSetDevice(ordinal_);
  Lane& lane = LaneOf(transfer);
  Reap(lane);
  if (transfer.number <= lane.ended) return nullptr;
  return lane.under_way.at(transfer.number - lane.ended - 1).second;
}

bool CudaDevice::HasEnded(Transfer transfer) { return EndOf(transfer) == nullptr; }

Status CudaDevice::Await(Transfer transfer) {
  if (const cudaEvent_t end = EndOf(transfer); end != nullptr) {
    Note(cudaEventSynchronize(end), "transferring");
  }
  return failure_;
}

void CudaDevice::OrderAfter(Transfer transfer) {
  if (const cudaEvent_t end = EndOf(transfer); end != nullptr) {
    Note(cudaStreamWaitEvent(stream_, end), "waiting for a transfer");
  }
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
