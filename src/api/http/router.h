// Which handler a request goes to, and who may send it: routes, API keys, CORS.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/access/key_ring.h"
#include "api/http/exchange.h"

namespace kvasir::api {

enum class Access { kOpen, kKey };  // kKey: needs an API key, where the server has any

struct RouterOptions {
  KeyRing keys;                              // none: everything is open
  std::vector<std::string> allowed_origins;  // of browsers; "*" allows any, none allows none
};

// Immutable once served; thread-safe.
class Router {
 public:
  explicit Router(RouterOptions options);

  // `path` is exact, or ends with "/*", which stands for any rest that is not empty.
  void Add(std::string method, std::string path, Access access, Handler handler);

  // Unknown path: 404. Known path, other method: 405. Missing or wrong key: 401. A POST beyond its
  // key's limits: 429. A POST whose body
  // is declared to be something else than JSON: 415 (a page of a foreign origin may send such
  // bodies without asking first).
  void Handle(const std::shared_ptr<Exchange>& exchange) const;

 private:
  struct Route {
    std::string method;
    std::string path;
    Access access;
    Handler handler;
  };

  // False when the exchange has been answered: its caller is unknown, or beyond its limits.
  bool Admit(Exchange& exchange) const;
  // True when the exchange was a preflight request and has been answered.
  bool HandleCors(Exchange& exchange) const;

  KeyRing keys_;
  std::vector<std::string> allowed_origins_;
  std::vector<Route> routes_;
};

}  // namespace kvasir::api
