// hosts.toml: what the file says, where it is looked for, and how mirrors are asked, left and come back.
#include "fusefs/registry/hosts_dir.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "fusefs/registry/hosts_toml.h"
#include "test/registry/client_fixture.h"

namespace headrace::registry {
namespace {

constexpr const char* kWhole = R"(
server = "https://registry.example"
capabilities = ["pull", "resolve"]
ca = "own.pem"

[host."https://z-first.example"]
  capabilities = ["pull"]
  ca = ["a.pem", "/etc/b.pem"]
  client = [["c.cert", "c.key"], ["d.pem", ""]]
  dial_timeout = "1m30.5s"
[host."https://z-first.example".header]
  x-one = "1"
  x-two = ["2", "3"]
[host."http://a-second.example:5000/proxy/v2"]
  override_path = true
  skip_verify = true
  client = "e.pem"
[host."bare.example"]
)";

// Goal: every key, relative paths, and mirrors in the order of the file and not of their names.
TEST(HostsTomlTest, EveryKey) {
  auto file = ParseHostsToml(kWhole, "/certs");
  ASSERT_OK(file);
  EXPECT_EQ(file->server.url->ToString(), "https://registry.example/");
  EXPECT_TRUE(file->server.pull && file->server.resolve && !file->server.push);
  EXPECT_EQ(file->server.ca, std::vector<std::string>{"/certs/own.pem"});
  ASSERT_EQ(file->mirrors.size(), 3u);
  const HostEntry& first = file->mirrors[0];
  EXPECT_EQ(first.url->host, "z-first.example");
  EXPECT_TRUE(first.pull && !first.resolve && !first.push);
  EXPECT_EQ(first.ca, (std::vector<std::string>{"/certs/a.pem", "/etc/b.pem"}));
  EXPECT_EQ(first.client, (std::vector<std::pair<std::string, std::string>>{{"/certs/c.cert", "/certs/c.key"}, {"/certs/d.pem", ""}}));
  EXPECT_EQ(first.dial_timeout, std::chrono::milliseconds(90'500));
  EXPECT_EQ(first.headers, (std::vector<std::string>{"x-one: 1", "x-two: 2", "x-two: 3"}));
  EXPECT_FALSE(first.override_path);
  const HostEntry& second = file->mirrors[1];
  EXPECT_EQ(second.url->ToString(), "http://a-second.example:5000/proxy/v2");
  EXPECT_TRUE(second.override_path && second.skip_verify && second.pull && second.resolve && second.push);
  EXPECT_EQ(second.client.at(0).first, "/certs/e.pem");
  EXPECT_EQ(file->mirrors[2].url->scheme, "https");
  EXPECT_TRUE(ParseHostsToml("", "/x")->mirrors.empty());
  auto all = ParseHostsToml("[host.'m']\ncapabilities = []\n[host.'n']\ncapabilities = ['Pull']", "/x");
  ASSERT_OK(all);
  EXPECT_TRUE(all->mirrors[0].pull && all->mirrors[0].resolve && all->mirrors[0].push);
  EXPECT_TRUE(all->mirrors[1].pull && !all->mirrors[1].resolve);
  EXPECT_EQ(ParseHostsToml("colour = 'red'", "/x")->unknown, std::vector<std::string>{"colour (line 1)"});
}

// Goal: what is wrong is said with its key and line.
TEST(HostsTomlTest, Errors) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"server = 5", "line 1: server"},
      {"server = 'ftp://x'", "server"},
      {"\nhost = 'x'", "line 2: host"},
      {"[host.'https://m']\ncapabilities = ['pull', 'fly']", "line 2: capabilities: \"fly\""},
      {"[host.'https://m']\nskip_verify = 'yes'", "line 2: skip_verify: true or false"},
      {"[host.'https://m']\nca = [1]", "ca"},
      {"[host.'https://m']\nclient = [['a','b','c']]", "client"},
      {"[host.'https://m']\ndial_timeout = '3'", "dial_timeout"},
      {"[host.'https://m']\ndial_timeout = 3", "dial_timeout"},
      {"[host.'https://m']\ndial_timeout = 'nans'", "dial_timeout"},
      {"[host.'https://m']\ndial_timeout = '1s-infms'", "dial_timeout"},
      {"[host.'https://m'.header]\nx = \"a\\nb\"", "header.x"},
      {"[host.'https://m'.header]\n'a b' = 'c'", "header"},
      {"[host.'https://m?x=1']", "query"},
      {"[host.'https://user:pw@m']", "host"},
      {"host.'https://m' = 3", "a table is needed"},
      {"[host", "not TOML"},
  };
  for (const auto& [text, wanted] : cases) {
    auto file = ParseHostsToml(text, "/x");
    EXPECT_CODE(file, StatusCode::kInvalidArgument);
    EXPECT_THAT(file.status().message(), HasSubstr(wanted)) << text;
  }
}

class HostsTest : public ClientTest {
 protected:
  HostsTest() {
    options_.hosts_dir = dir_ / "certs";
    mirror_.AddBlob("team/model", content_);
  }
  std::string DirName() const {
    std::string name = registry_.host();
    return name.replace(name.rfind(':'), 1, "_") + "_";
  }
  void Write(const std::string& directory, const std::string& text, const std::string& name = "hosts.toml") {
    ASSERT_OK(MakeDirs(options_.hosts_dir + "/" + directory));
    ASSERT_OK(WriteFileAtomic(options_.hosts_dir + "/" + directory + "/" + name, text));
  }
  // The registry's own file with the mirror in it.
  void UseMirror(const std::string& more = "") {
    Write(DirName(), "[host.\"http://" + mirror_.host() + "\"]\n" + more);
    NewClient();
  }

  test::FakeRegistry mirror_;
};

// Goal: the first directory that exists counts, in each of the configured ones in turn; without any the registry is what its name says.
TEST_F(HostsTest, Directories) {
  const auto host_of = [](HostsDir& hosts, const std::string& name) {
    auto found = hosts.Find(name);
    return found->mirrors.empty() ? "" : found->mirrors[0]->base.host;
  };
  const auto mirror = [](const std::string& host) { return "[host.\"https://" + host + "\"]\n"; };
  Write("a/r.example_5000_", mirror("underscore"));
  Write("a/r.example:5000", mirror("colon"));
  Write("a/docker.io", mirror("hub"));
  Write("b/_default", mirror("default"));
  Write("b/other.example", mirror("other"));
  HostsDir hosts(options_.hosts_dir + "/none:" + options_.hosts_dir + "/a::" + options_.hosts_dir + "/b");
  EXPECT_EQ(host_of(hosts, "r.example:5000"), "underscore");
  EXPECT_EQ(host_of(hosts, "docker.io"), "hub");
  EXPECT_EQ(host_of(hosts, "other.example"), "other");
  EXPECT_EQ(host_of(hosts, "unknown.example"), "default");
  EXPECT_EQ(host_of(hosts, ".."), "default");
  HostsDir only_a(options_.hosts_dir + "/a");
  EXPECT_EQ(only_a.Find("unknown.example")->registry, nullptr);
  HostsDir none("");
  EXPECT_TRUE(none.Find("docker.io")->mirrors.empty());
  auto hub = hosts.Find("docker.io");
  EXPECT_EQ(hub->registry->base.ToString(), "https://registry-1.docker.io/v2");
  EXPECT_EQ(hub->mirrors[0]->base.ToString(), "https://hub/v2");
  EXPECT_EQ(hub->mirrors[0]->ns, "docker.io");
  EXPECT_EQ(hub->registry->id, 0u);
  EXPECT_NE(hub->mirrors[0]->id, 0u);
}

// Goal: content comes from the mirror, which is told the registry's name; the registry is not asked.
TEST_F(HostsTest, MirrorAnswers) {
  UseMirror();
  EXPECT_OK(FetchStatus(10, 5000));
  EXPECT_EQ(*Blob(), content_);
  EXPECT_OK(client_->GetBlobRange(Ref(), digest_, 0, 10));
  EXPECT_EQ(registry_.counts().requests, 0u);
  std::string colon = registry_.host();
  for (const auto& request : mirror_.requests()) {
    EXPECT_THAT(request.target, HasSubstr("/v2/team/model/blobs/" + digest_.ToString() + "?ns=" + PercentEncode(registry_.host())));
  }
  EXPECT_EQ(metrics_.mirror_requests.load(), 3);
}

// Goal: capabilities: a mirror that may not resolve is not asked what a tag means, but for content by digest.
TEST_F(HostsTest, Capabilities) {
  const std::string manifest = R"({"schemaVersion":2})";
  const Digest digest = registry_.AddManifest("team/model", "latest", manifest);
  mirror_.AddManifest("team/model", "latest", manifest);
  UseMirror("capabilities = ['pull']\n");
  EXPECT_OK(client_->GetManifest(Ref("team/model:latest")));
  EXPECT_EQ(mirror_.counts().requests, 0u);
  EXPECT_OK(client_->GetManifest(Ref("team/model@" + digest.ToString())));
  EXPECT_EQ(mirror_.counts().manifest_gets, 1u);
  UseMirror("capabilities = ['resolve']\n");
  EXPECT_OK(client_->GetManifest(Ref("team/model:latest")));
  EXPECT_EQ(mirror_.counts().manifest_gets, 2u);
  EXPECT_OK(FetchStatus(0, 10));
  EXPECT_EQ(mirror_.counts().blob_gets, 0u);
  // Pushes go to the registry.
  UseMirror();
  EXPECT_OK(client_->PushBlob(Ref(), Digest::Of("new"), "new"));
  EXPECT_TRUE(registry_.Blob("team/model", Digest::Of("new")).has_value());
  EXPECT_FALSE(mirror_.Blob("team/model", Digest::Of("new")).has_value());
}

// Goal: a dead mirror costs one try and then rests; one that lacks the blob is not asked for it again, but for others.
TEST_F(HostsTest, MirrorFails) {
  UseMirror();
  mirror_.RefuseConnections();
  for (int i = 0; i < 5; ++i) EXPECT_OK(FetchStatus(0, 10));
  EXPECT_EQ(metrics_.mirror_failures.load(), 1);
  EXPECT_EQ(registry_.counts().blob_gets, 5u);
  mirror_.AcceptConnections();
  NewClient();  // forgets the rest
  mirror_.AddFault({.kind = Kind::kStatus, .times = -1, .status = 404});
  EXPECT_OK(FetchStatus(0, 10));
  mirror_.ClearFaults();
  const auto asked = mirror_.counts().requests;
  EXPECT_OK(FetchStatus(0, 10));
  EXPECT_EQ(mirror_.counts().requests, asked);
  const std::string other = test::RandomBytes(1000, 9);
  registry_.AddBlob("team/model", other);
  mirror_.AddBlob("team/model", other);
  EXPECT_OK(client_->GetBlobRange(Ref(), Digest::Of(other), 0, 10));
  EXPECT_EQ(mirror_.counts().requests, asked + 1);
  EXPECT_EQ(metrics_.mirror_failures.load(), 1);  // a 404 is none
}

// Goal: whatever a mirror answers that is no content, the registry is asked next; if both fail the error tells of both.
TEST_F(HostsTest, EveryBadAnswer) {
  for (const int status : {400, 401, 403, 404, 429, 500, 503}) {
    UseMirror();
    mirror_.ClearFaults();
    mirror_.AddFault({.kind = Kind::kStatus, .times = -1, .status = status});
    SCOPED_TRACE(status);
    EXPECT_OK(FetchStatus(0, 10));
  }
  for (const Kind kind : {Kind::kClose, Kind::kWrongRange, Kind::kIgnoreRange}) {
    UseMirror();
    mirror_.ClearFaults();
    mirror_.AddFault({.kind = kind, .times = -1});
    EXPECT_OK(FetchStatus(5, 10));
  }
  UseMirror();
  registry_.AddFault({.kind = Kind::kStatus, .times = -1, .status = 404});
  Status both = FetchStatus(0, 10);
  EXPECT_CODE(both, StatusCode::kNotFound);
  EXPECT_THAT(both.message(), HasSubstr("mirrors before it failed: " + mirror_.host()));
}

// Goal: a body that breaks off ends the attempt; the next one goes to the registry.
TEST_F(HostsTest, MirrorBreaksOff) {
  UseMirror();
  mirror_.AddFault({.kind = Kind::kReset, .times = -1, .after_bytes = 1000});
  EXPECT_FALSE(FetchStatus(0, 100'000).ok());
  EXPECT_OK(FetchStatus(0, 100'000));
  EXPECT_EQ(registry_.counts().blob_gets, 1u);
}

// Goal: wrong bytes: the mirror is left for good and counted; a check of ours finds it, and so does a manifest's digest.
TEST_F(HostsTest, WrongBytes) {
  UseMirror();
  mirror_.AddFault({.kind = Kind::kFlipBit, .times = -1, .blob_offset = 3});
  const auto check = [&](std::string_view bytes) { return bytes == std::string_view(content_).substr(0, 10) ? OkStatus() : DataLossError("not it"); };
  EXPECT_OK(client_->GetBlobRange(Ref(), digest_, 0, 10, check));
  EXPECT_EQ(metrics_.mirror_wrong_bytes.load(), 1);
  EXPECT_OK(FetchStatus(0, 10));
  EXPECT_EQ(mirror_.counts().blob_gets, 1u);
  registry_.AddFault({.kind = Kind::kFlipBit, .times = -1, .blob_offset = 3});
  EXPECT_CODE(client_->GetBlobRange(Ref(), digest_, 0, 10, check), StatusCode::kDataLoss);
  registry_.ClearFaults();
  // Told by a reader.
  NewClient();
  auto sink = StartFetch(0, 10);
  EXPECT_OK(sink->Wait());
  ASSERT_NE(sink->source(), 0u);
  client_->ReportWrongBytes({Ref().ToString(), digest_}, sink->source());
  EXPECT_OK(FetchStatus(0, 10));
  EXPECT_EQ(mirror_.counts().blob_gets, 2u);
  // A manifest by digest.
  const Digest manifest = registry_.AddManifest("team/model", "", R"({"schemaVersion":2})");
  NewClient();
  mirror_.AddFault({.kind = Kind::kStatus, .path_contains = "/manifests/", .times = -1, .status = 200, .body = R"({"schemaVersion":3})"});
  const auto asked = mirror_.counts().requests;
  EXPECT_OK(client_->GetManifest(Ref("team/model@" + manifest.ToString())));
  EXPECT_OK(client_->GetManifest(Ref("team/model@" + manifest.ToString())));
  EXPECT_EQ(mirror_.counts().requests, asked + 1);
  EXPECT_THAT(log_.str(), HasSubstr("a mirror gave wrong bytes"));
}

// Goal: headers and credentials go to the place that they are for, and to no redirect's target.
TEST_F(HostsTest, HeadersAndCredentials) {
  mirror_.RequireBasic("user", "hunter2");
  mirror_.RedirectBlobs(true);
  ASSERT_OK(WriteFileAtomic(options_.docker_config_path, R"({"auths":{")" + mirror_.host() + R"(":{"username":"user","password":"hunter2"}}})"));
  UseMirror("[host.\"http://" + mirror_.host() + "\".header]\nuser-agent = 'from-hosts-toml'\n");
  EXPECT_OK(FetchStatus(0, 10));
  EXPECT_EQ(registry_.counts().requests, 0u);
  bool seen = false;
  for (const auto& request : mirror_.requests()) {
    if (request.cdn) {
      EXPECT_EQ(request.authorization, "");
      EXPECT_THAT(request.user_agent, Not(HasSubstr("from-hosts-toml")));
    } else {
      seen = seen || request.user_agent.find("from-hosts-toml") != std::string::npos;
    }
  }
  EXPECT_TRUE(seen);
}

// Goal: a broken file costs its registry the mirrors and nobody else anything; errors name it; mended, it counts again.
TEST_F(HostsTest, BrokenFile) {
  Write(DirName(), "[host.\"http://" + mirror_.host() + "\"]\ncapabilities = ['fly']\n");
  NewClient();
  EXPECT_OK(FetchStatus(0, 10));
  EXPECT_EQ(mirror_.counts().requests, 0u);
  EXPECT_THAT(log_.str(), HasSubstr("hosts.toml is not used"));
  registry_.AddFault({.kind = Kind::kStatus, .times = 1, .status = 404});
  EXPECT_THAT(FetchStatus(0, 10).message(), HasSubstr("hosts.toml: [host"));
  HostsDir hosts(options_.hosts_dir);
  EXPECT_TRUE(hosts.Find("fine.example")->note.empty());
  UseMirror();
  EXPECT_OK(FetchStatus(0, 10));
  EXPECT_EQ(mirror_.counts().blob_gets, 1u);
}

// Goal: without hosts.toml certificates are taken from the directory; those that cannot be read are said.
TEST_F(HostsTest, CertificateFiles) {
  Write("r.example", "authority", "own.crt");
  Write("r.example", "certificate", "me.cert");
  HostsDir hosts(options_.hosts_dir);
  auto found = hosts.Find("r.example");
  ASSERT_NE(found->registry, nullptr);
  ASSERT_NE(found->registry->tls, nullptr);
  EXPECT_EQ(found->registry->tls->ca_pem, "authority\n");
  EXPECT_THAT(found->registry->tls->client_certificate, ::testing::EndsWith("me.cert"));
  EXPECT_EQ(found->registry->tls->client_key, "");  // in the same file
  Write("q.example", "certificate", "me.cert");
  Write("q.example", "key", "me.key");
  Write("q.example", "");  // an empty hosts.toml is as good as none
  found = hosts.Find("q.example");
  ASSERT_NE(found->registry->tls, nullptr);
  EXPECT_THAT(found->registry->tls->client_key, ::testing::EndsWith("me.key"));
  Write("p.example", "[host.\"https://m.example\"]\nca = 'gone.crt'\nclient = 'gone.pem'\n");
  EXPECT_THAT(hosts.Find("p.example")->note, ::testing::AllOf(HasSubstr("gone.crt"), HasSubstr("gone.pem is not there")));
}

// Goal: an authority that is replaced in its place counts within seconds.
TEST_F(HostsTest, RotatedAuthority) {
  Write("r.example", "one", "own.crt");
  Write("r.example", "server = \"https://r.example\"\nca = 'own.crt'\n");
  HostsDir hosts(options_.hosts_dir);
  EXPECT_EQ(hosts.Find("r.example")->registry->tls->ca_pem, "one\n");
  const int fd = ::open((options_.hosts_dir + "/r.example/own.crt").c_str(), O_WRONLY | O_TRUNC);  // the directory does not change
  ASSERT_EQ(::write(fd, "second", 6), 6);
  ::close(fd);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (hosts.Find("r.example")->registry->tls->ca_pem != "second\n") {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

// Goal: "server" replaces the registry's own address, with what override_path says.
TEST_F(HostsTest, Server) {
  Write("_default", "server = \"http://" + registry_.host() + "/v2\"\n");
  NewClient();
  auto sink = std::make_shared<CollectingSink>();
  client_->Fetch({"upstream.example/team/model:latest", digest_}, 0, 10, sink);
  EXPECT_OK(sink->Wait());
  EXPECT_EQ(registry_.counts().blob_gets, 1u);
  EXPECT_THAT(registry_.requests().back().target, HasSubstr("?ns=upstream.example"));
}

}  // namespace
}  // namespace headrace::registry
