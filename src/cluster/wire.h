// The values of the request plane as messages of proto/kvasir/engine/v1/engine.proto, and back.
// What comes from outside is checked: InvalidArgument names the field. Pure.
#pragma once

#include <kvasir/engine/v1/engine.pb.h>

#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "core/engine_client.h"

namespace kvasir::cluster {

namespace wire = kvasir::engine::v1;

inline constexpr uint32_t kMajorVersion = 1;
inline constexpr uint32_t kMinorVersion = 0;

// The largest frame that either side takes: a prompt of a million tokens has about 5 MB.
inline constexpr int kMaxFrameBytes = 64 << 20;

// A peer whose machine has gone silent is given up after both.
inline constexpr int kKeepaliveMs = 10'000;
inline constexpr int kKeepaliveTimeoutMs = 5'000;

wire::Version OwnVersion();
// FailedPrecondition, with both versions, where `peer` speaks another major one.
Status CheckVersion(const wire::Version& peer, std::string_view who);

// Times are sent as what has passed and what is left: clocks of machines differ.
wire::Submit ToWire(const Request& request, TimePoint now);
StatusOr<Request> FromWire(const wire::Submit& submit, TimePoint now);

wire::Event ToWire(const std::string& request_id, const TokenEvent& event);
StatusOr<TokenEvent> FromWire(const wire::Event& event);

wire::Model ToWire(const ModelInfo& model);
StatusOr<ModelInfo> FromWire(const wire::Model& model);

// A status with its hint when to try again.
wire::Error ToWire(const Status& status);
Status FromWire(const wire::Error& error);

wire::Load LoadOf(const EngineStats& stats, bool healthy);
EngineStats StatsOf(const wire::Load& load);

}  // namespace kvasir::cluster
