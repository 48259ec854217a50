// The frontend's side of the request plane: a worker as an EngineClient.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "core/engine_client.h"

namespace kvasir::cluster {

struct RemoteEngineOptions {
  std::string address;   // HOST:PORT
  std::string frontend;  // this frontend's name, for the worker's log
  // Between attempts to reach a worker that was lost: from the first to the last wait.
  Duration first_retry = std::chrono::milliseconds(100);
  Duration last_retry = std::chrono::seconds(5);
};

// Every method is thread-safe. Submit only says whether the worker is connected: what the worker
// itself refuses comes as an error of every choice. When the worker is lost, each request in flight
// gets Unavailable for each choice that has not finished, and the worker is looked for again until
// it is back with the same model. Sinks are called on gRPC's threads, one event of a request at a
// time. The destructor ends what is in flight; afterwards no sink is called.
class RemoteEngine final : public EngineClient {
 public:
  // Begins to look for the worker, and returns at once.
  RemoteEngine(RemoteEngineOptions options, const Clock& clock);
  ~RemoteEngine() override;

  // Waits until the worker has said what it serves. Unavailable with the address when it does not
  // within `patience`; FailedPrecondition when it speaks another version.
  Status AwaitWorker(Duration patience) const;

  // REQUIRES: AwaitWorker was Ok, or Healthy() true, once.
  const ModelInfo& Model() const override;
  Status Submit(std::shared_ptr<const Request> request, std::shared_ptr<TokenSink> sink) override;
  void Cancel(const std::string& request_id, std::optional<int32_t> choice) override;
  // Of the worker's last frame.
  EngineStats Stats() const override;
  // Connected. (That it hangs is not seen: frames come with tokens alone.)
  bool Healthy() const override;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace kvasir::cluster
