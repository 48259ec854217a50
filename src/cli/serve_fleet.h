// The HTTP server over workers in other processes: those that it starts itself, or those that it is
// told of.
#pragma once

#include <string>
#include <vector>

#include "api/api_server.h"
#include "base/status.h"
#include "cli/serve.h"
#include "cli/signals.h"

namespace kvasir::cli {

// Starts config.workers processes with the given options of the model, keeps them alive, and serves
// over them until `stop`.
Status ServeWithProcesses(const ServeConfig& config, std::vector<std::string> model_options,
                          api::ApiOptions api_options, StopSignal& stop);

// Serves over the workers at `addresses`, which run the model of `text`, until `stop`. They may
// come and go; one of them must be there within `patience`.
Status ServeOverWorkers(const ServeConfig& config, const ServedModel& text,
                        const std::vector<std::string>& addresses, api::ApiOptions api_options,
                        Duration patience, StopSignal& stop);

}  // namespace kvasir::cli
