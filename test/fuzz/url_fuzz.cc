// URLs, Locations of redirects (signed URLs), image references. Input: '0' and a URL; '1', a base and a Location, one a line; '2' and a reference.
#include <algorithm>
#include <string>

#include "fusefs/base/status.h"
#include "fusefs/registry/limits.h"
#include "fusefs/registry/reference.h"
#include "fusefs/registry/url.h"
#include "test/fuzz/fuzz_targets.h"

namespace headrace::fuzz {
namespace {

// What curl and the comparison of origins rely on.
void CheckUrl(const registry::Url& url) {
  HEADRACE_CHECK(url.scheme == "http" || url.scheme == "https");
  HEADRACE_CHECK(!url.host.empty() && url.host.find_first_of("/?#@") == std::string::npos);
  HEADRACE_CHECK(std::none_of(url.host.begin(), url.host.end(), [](char c) { return c >= 'A' && c <= 'Z'; }));
  HEADRACE_CHECK(url.target.starts_with('/'));
  const std::string text = url.ToString();
  HEADRACE_CHECK(std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; }));
  auto again = registry::Url::Parse(text);
  HEADRACE_CHECK(again.ok() || text.size() > registry::kUrlBytesMax);
  if (again.ok()) HEADRACE_CHECK(again->ToString() == text && again->origin() == url.origin());
  (void)registry::IsLoopbackHost(url.host);
}

void CheckReference(std::string_view text) {
  auto reference = registry::Reference::Parse(text);
  if (!reference.ok()) return;
  HEADRACE_CHECK(!reference->host.empty() && reference->host.size() + 1 + reference->repository.size() <= registry::kNameBytesMax);
  HEADRACE_CHECK(reference->repository.find("..") == std::string::npos && !reference->manifest_key().empty());
  auto again = registry::Reference::Parse(reference->ToString());
  HEADRACE_CHECK(again.ok() && again->ToString() == reference->ToString() && again->api_host() == reference->api_host());
  // It becomes a URL.
  HEADRACE_CHECK(registry::Url::Parse("https://" + reference->api_host() + "/v2/" + reference->repository + "/").ok());
}

}  // namespace

void FuzzUrl(Bytes data) {
  Input input(data);
  const size_t choice = input.Choice(3);
  if (choice == 2) return CheckReference(input.Text());
  auto url = registry::Url::Parse(choice == 1 ? input.Line() : input.Text());
  if (!url.ok()) return;
  CheckUrl(*url);
  if (choice == 0) return;
  auto target = registry::Url::Resolve(*url, input.Text());
  if (target.ok()) CheckUrl(*target);
}

}  // namespace headrace::fuzz
