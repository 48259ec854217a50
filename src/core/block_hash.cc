#include "core/block_hash.h"

#include <openssl/evp.h>

#include <bit>
#include <memory>

#include "base/check.h"

namespace kvasir {
namespace {

static_assert(std::endian::native == std::endian::little, "token ids are hashed as they lie");

// One digest context a thread: setting one up costs more than hashing a unit.
class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    KVASIR_CHECK(context_ != nullptr, "OpenSSL has no memory for a digest");
    KVASIR_CHECK(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
                 "OpenSSL has no SHA-256");
  }

  void Update(const void* data, size_t size) { EVP_DigestUpdate(context_.get(), data, size); }

  // The digest of all updates since the last call.
  Hash128 Finish() {
    uint8_t digest[EVP_MAX_MD_SIZE];
    EVP_DigestFinal_ex(context_.get(), digest, nullptr);
    EVP_DigestInit_ex(context_.get(), nullptr, nullptr);
    Hash128 out;
    std::memcpy(out.bytes.data(), digest, out.bytes.size());
    return out;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

Sha256& ThreadSha256() {
  thread_local Sha256 sha;
  return sha;
}

}  // namespace

Hash128 CacheRoot(std::string_view weights_fingerprint, std::string_view numerics_id,
                  std::string_view adapter, std::string_view cache_salt) {
  Sha256& sha = ThreadSha256();
  for (std::string_view field : {weights_fingerprint, numerics_id, adapter, cache_salt}) {
    const uint64_t size = field.size();
    sha.Update(&size, sizeof(size));
    sha.Update(field.data(), field.size());
  }
  return sha.Finish();
}

Hash128 HashUnit(const Hash128& parent, absl::Span<const TokenId> ids) {
  KVASIR_CHECK(ids.size() == kHashUnitTokens, "a hash unit is 16 tokens");
  Sha256& sha = ThreadSha256();
  sha.Update(parent.bytes.data(), parent.bytes.size());
  sha.Update(ids.data(), ids.size() * sizeof(TokenId));
  return sha.Finish();
}

std::vector<Hash128> HashUnits(const Hash128& root, absl::Span<const TokenId> ids) {
  std::vector<Hash128> out;
  out.reserve(ids.size() / kHashUnitTokens);
  Hash128 parent = root;
  for (size_t i = 0; i + kHashUnitTokens <= ids.size(); i += kHashUnitTokens) {
    parent = HashUnit(parent, ids.subspan(i, kHashUnitTokens));
    out.push_back(parent);
  }
  return out;
}

}  // namespace kvasir
