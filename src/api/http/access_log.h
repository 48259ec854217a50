// One exchange as a line of the access log: a JSON object.
#pragma once

#include <chrono>
#include <string>

#include "api/http/exchange.h"

namespace kvasir::api {

// Never a prompt, an output, a query or a key. `now` is when the exchange ended.
std::string AccessLogLine(const HttpRequest& request, const ExchangeRecord& record,
                          std::chrono::system_clock::time_point now);

}  // namespace kvasir::api
