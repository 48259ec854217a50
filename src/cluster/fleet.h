// Workers of one model as one EngineClient: it says which worker takes a request, and takes it to
// another one when that worker is lost.
//
// Because a request's tokens are a function of the request alone, a lost stream goes on elsewhere
// by computing the request again and leaving out what was already delivered: with any sampling,
// constraint, number of choices or beams, the client sees the very tokens that would have come.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "core/engine_client.h"

namespace kvasir::cluster {

// Every method is thread-safe. Members outlive the fleet.
class Fleet final : public EngineClient {
 public:
  struct Member {
    std::string name;  // for logs and errors
    EngineClient* engine = nullptr;
  };

  // `model` is what all members serve, or will once they are there: one with other weights, other
  // numerics or another context gets no requests. A request that loses its member waits up to
  // `patience` for another; one that loses several in a row without hearing of them, ends.
  Fleet(std::vector<Member> members, ModelInfo model, Duration patience);
  ~Fleet() override;

  const ModelInfo& Model() const override;
  // Unavailable when no member is healthy.
  Status Submit(std::shared_ptr<const Request> request, std::shared_ptr<TokenSink> sink) override;
  void Cancel(const std::string& request_id, std::optional<int32_t> choice) override;
  // The sums of the members'.
  EngineStats Stats() const override;
  // Any member is.
  bool Healthy() const override;

 private:
  struct State;
  class Replay;

  void Move();
  bool Resume(Replay& replay);

  const std::shared_ptr<State> state_;
  std::thread mover_;  // last: it uses the above
};

}  // namespace kvasir::cluster
