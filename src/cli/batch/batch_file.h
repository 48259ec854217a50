// OpenAI batch files: a request a line, an answer a line.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "api/http/message.h"
#include "base/status.h"

namespace kvasir::cli {

struct BatchRequest {
  std::string custom_id;
  std::string url;   // a path
  std::string body;  // JSON
};

// Reads the lines of one file, one by one. Not thread-safe.
class BatchReader {
 public:
  // {"custom_id", "method": "POST", "url", "body"}. Errors name the field. Of two lines with one
  // custom_id the second is an error, and so is a streamed answer, and a url that is not for
  // batches. `custom_id` is filled in as far as it could be read.
  StatusOr<BatchRequest> Read(std::string_view line, std::string* custom_id);

 private:
  std::set<std::string> seen_;
};

// An answer, as a line of the output without its newline. HTTP errors are answers too.
std::string BatchAnswer(const std::string& id, const std::string& custom_id,
                        const api::HttpResponse& response);
// Of a line that could not be asked.
std::string BatchError(const std::string& id, const std::string& custom_id, const Status& error);

}  // namespace kvasir::cli
