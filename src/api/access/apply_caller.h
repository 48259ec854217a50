// What a caller's key means for a generation that it asks for.
#pragma once

#include <memory>
#include <vector>

#include "api/http/message.h"
#include "api/protocol/request.h"
#include "base/status.h"
#include "core/request.h"

namespace kvasir::api {

// Holds the priority to what the key may ask for, and makes the cache salt the key's own: requests
// share cached prefixes where both the key's salt and their own are the same.
void ApplyCaller(const HttpRequest& http, GenerationOptions* options);

// Takes the tokens that these requests may use from their caller's budget; see Budget.
Status ReserveTokens(const HttpRequest& http,
                     const std::vector<std::shared_ptr<const Request>>& requests,
                     const GenerationOptions& options, TimePoint now);

}  // namespace kvasir::api
