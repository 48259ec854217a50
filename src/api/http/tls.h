// The server's side of TLS.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <string>

#include "base/status.h"

namespace kvasir::api {

// TLS 1.2 and later, with a PEM file of the certificate and its chain and one of its key, which has
// no passphrase. Errors name the file at fault.
StatusOr<std::shared_ptr<boost::asio::ssl::context>> LoadTls(const std::string& cert_file,
                                                             const std::string& key_file);

}  // namespace kvasir::api
