// Puts a load on an OpenAI-compatible server and measures what a client sees.
#pragma once

#include "base/status.h"
#include "loadgen/options.h"
#include "loadgen/report.h"

namespace kvasir::loadgen {

// Blocks until the load is done; one thread, the caller's. A request that fails is part of the
// report. InvalidArgument for bad options; Unavailable when the server can't be reached at all.
StatusOr<Report> Run(const Options& options);

}  // namespace kvasir::loadgen
