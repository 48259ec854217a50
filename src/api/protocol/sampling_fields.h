// The fields that say how tokens are chosen, and where an answer stops.
#pragma once

#include "api/protocol/fields.h"
#include "api/protocol/request.h"

namespace kvasir::api {

// Ranges that need the model, and open ends of ranges, are for core's Validate.
void ReadSampling(FieldReader& reader, GenerationOptions* options);

// Of these, what all protocols have under the same names.
void ReadCoreSampling(FieldReader& reader, SamplingParams* sampling);
// Stop strings by the name that the protocol has for them.
void ReadStop(FieldReader& reader, const char* name, std::vector<std::string>* stop);
void ReadSeed(FieldReader& reader, GenerationOptions* options);

}  // namespace kvasir::api
