// The fields that say how tokens are chosen, and where an answer stops.
#pragma once

#include "api/protocol/json.h"
#include "api/protocol/request.h"

namespace kvasir::api {

// Ranges that need the model are for core's Validate.
void ReadSampling(FieldReader& reader, GenerationOptions* options);

}  // namespace kvasir::api
