#include "api/protocol/error.h"

#include <absl/strings/cord.h>
#include <gtest/gtest.h>

namespace kvasir::api {
namespace {

TEST(Errors, BecomeOpenAiErrorObjects) {
  const ErrorObject field = ToErrorObject(FieldError("top_p", "is odd"));
  EXPECT_EQ(field.http_status, 400);
  EXPECT_EQ(
      ErrorJson(field),
      R"({"error":{"message":"top_p: is odd","type":"invalid_request_error","param":"top_p","code":null}})");

  Status full = absl::ResourceExhaustedError("full");
  full.SetPayload("kvasir/retry-after", absl::Cord("1.25"));
  const HttpResponse response = ErrorResponse(full);
  EXPECT_EQ(response.status, 429);
  ASSERT_EQ(response.headers.size(), 1u);
  EXPECT_EQ(response.headers[0].second, "2");

  EXPECT_EQ(ToErrorObject(absl::InternalError("x")).http_status, 500);
  EXPECT_EQ(ToErrorObject(absl::UnavailableError("x")).http_status, 503);
  EXPECT_EQ(ToErrorObject(absl::DeadlineExceededError("x")).http_status, 408);
}

TEST(Errors, TakeTheFieldFromACoreMessage) {
  EXPECT_EQ(ToErrorObject(FieldFromMessage(absl::InvalidArgumentError("top_k: bad"))).param,
            "top_k");
  EXPECT_EQ(ToErrorObject(FieldFromMessage(absl::InvalidArgumentError("It is: bad"))).param, "");
  EXPECT_EQ(ToErrorObject(FieldFromMessage(absl::UnavailableError("queue: full"))).param, "");
}

}  // namespace
}  // namespace kvasir::api
