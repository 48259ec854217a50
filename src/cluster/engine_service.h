// The worker's side of the request plane: an EngineClient served over gRPC.
#pragma once

#include <kvasir/engine/v1/engine.grpc.pb.h>

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "core/engine_client.h"

namespace kvasir::cluster {

struct EngineServerOptions {
  std::string address = "127.0.0.1:0";  // port 0: any free one
  // A frontend that leaves more than this many bytes unread is cut off, and its requests cancelled.
  size_t max_unread_bytes = size_t{256} << 20;
};

// Serves until it is destroyed. gRPC brings its own threads.
class EngineServer {
 public:
  // `engine` and `clock` outlive the server. Unavailable, with the address, when it cannot be
  // listened on.
  static StatusOr<std::unique_ptr<EngineServer>> Start(EngineClient& engine, const Clock& clock,
                                                       EngineServerOptions options);
  ~EngineServer();

  int port() const { return port_; }

  // Ends all streams: frontends take their requests elsewhere.
  void Stop();

 private:
  class Service;
  EngineServer(std::unique_ptr<Service> service, std::unique_ptr<grpc::Server> server, int port);

  const std::unique_ptr<Service> service_;
  const std::unique_ptr<grpc::Server> server_;
  const int port_;
};

}  // namespace kvasir::cluster
