#include "api/http/tls.h"

#include <fmt/format.h>
#include <openssl/ssl.h>

#include <cerrno>
#include <cstring>
#include <fstream>

namespace kvasir::api {
namespace ssl = boost::asio::ssl;

namespace {

Status CheckReadable(const char* option, const std::string& path) {
  std::ifstream in(path);
  if (in && in.peek() != std::ifstream::traits_type::eof()) return absl::OkStatus();
  return absl::NotFoundError(fmt::format("{}: cannot read {}", option, path));
}

Status Fault(const char* option, const std::string& path, const boost::system::error_code& error) {
  return absl::InvalidArgumentError(fmt::format("{}: {}: {}", option, path, error.message()));
}

}  // namespace

StatusOr<std::shared_ptr<ssl::context>> LoadTls(const std::string& cert_file,
                                                const std::string& key_file) {
  KVASIR_RETURN_IF_ERROR(CheckReadable("tls-cert", cert_file));
  KVASIR_RETURN_IF_ERROR(CheckReadable("tls-key", key_file));
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
  // Without this OpenSSL would ask the terminal for a passphrase.
  context->set_password_callback([](size_t, ssl::context::password_purpose) { return ""; });
  boost::system::error_code error;
  if (context->use_certificate_chain_file(cert_file, error)) {
    return Fault("tls-cert", cert_file, error);
  }
  if (context->use_private_key_file(key_file, ssl::context::pem, error)) {
    return Fault("tls-key", key_file, error);
  }
  return context;
}

}  // namespace kvasir::api
