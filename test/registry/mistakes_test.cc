// Goal: whoever makes a mistake in a file that the registry client reads finds in the error of a read which file it is, which key, and what would be right; and the mistake takes down neither
// other registries nor other sources of credentials. (headrace.toml: config_test; what each parser says of each mistake: credentials_test, hosts_test, parsers_test.)
#include <sys/stat.h>

#include <functional>

#include "fusefs/base/text.h"
#include "test/registry/client_fixture.h"
#include "test/registry/credential_test_util.h"

namespace headrace::registry {
namespace {

struct Mistake {
  const char* file;    // below the test's directory
  std::string text;
  const char* key;     // what the error must name
  const char* fix;     // and say
};

class MistakesTest : public ClientTest {
 protected:
  MistakesTest() {
    options_.hosts_dir = dir_ / "certs";
    options_.keychain.provider_config = dir_ / "providers.yaml";
    options_.keychain.provider_programs = dir_.path();
    options_.keychain.credentials_file = dir_ / "credentials.json";
    other_.AddBlob("team/model", content_);
  }
  std::string HostsToml() const { return "certs/" + registry_.host() + "/hosts.toml"; }
  void WriteFile(const std::string& file, const std::string& text) {
    ASSERT_OK(MakeDirs((dir_ / file).substr(0, (dir_ / file).rfind('/'))));
    ASSERT_OK(WriteFileAtomic(dir_ / file, text, 0600));
  }
  Status FetchFromOther() {
    auto sink = std::make_shared<CollectingSink>();
    client_->Fetch({other_.host() + "/team/model:latest", digest_}, 0, 10, sink);
    return sink->Wait();
  }
  void ExpectSaid(const Mistake& mistake) {
    SCOPED_TRACE(std::string(mistake.file) + ": " + mistake.text);
    WriteFile(mistake.file, mistake.text);
    NewClient();
    const Status status = FetchStatus(0, 10);
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(status.message(), HasSubstr(dir_ / mistake.file));
    EXPECT_THAT(status.message(), HasSubstr(mistake.key));
    EXPECT_THAT(status.message(), HasSubstr(mistake.fix));
    EXPECT_OK(FetchFromOther());
    ASSERT_OK(RemoveAll(dir_ / mistake.file));
  }
  std::string Provider(const std::string& field, const std::string& instead) const {
    std::string text = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: helper\n"
                       "  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  matchImages: ['*.example.com']\n  defaultCacheDuration: 1h\n";
    const size_t at = text.find(field);
    return text.replace(at, text.find('\n', at) - at, instead);
  }

  test::FakeRegistry other_;  // needs no credentials
};

TEST_F(MistakesTest, FilesOfCredentials) {
  registry_.RequireToken("user", "hunter2");
  const std::string host = registry_.host();
  const Mistake mistakes[] = {
      {"config.json", "{", "not a JSON object", "log in again (docker login)"},
      {"config.json", R"({"auths":["hunter2"]})", "\"auths\"", "must be an object"},
      {"config.json", R"({"credHelpers":3})", "\"credHelpers\"", "must be an object"},
      {"config.json", R"({"credsStore":"../x"})", "\"credsStore\"", "the name of a program (docker-credential-NAME)"},
      {"config.json", R"({"credHelpers":{")" + host + R"(":["x"]}})", "\"credHelpers\"", "the name of a program (docker-credential-NAME)"},
      {"config.json", R"({"auths":{")" + host + R"(":{"auth":"hunter2"}}})", "\"auth\"", "the base64 of user:password"},
      {"config.json", R"({"auths":{"elsewhere":{"auth":"hunter2"}}})", "no credentials for this host", "docker login"},
      {"config.json", R"({"credHelpers":{")" + host + R"(":"missing"}})", "docker-credential-missing", "in $PATH"},
      {"providers.yaml", "kind: [", "line", "not valid YAML"},
      {"providers.yaml", Provider("kind:", "kind: Pod"), "kind", "must be CredentialProviderConfig"},
      {"providers.yaml", Provider("apiVersion:", "apiVersion: v7"), "apiVersion", "must be kubelet.config.k8s.io/v1"},
      {"providers.yaml", Provider("  matchImages:", "  matchImages: ['https://a.example.com']"), "providers[0].matchImages[0]", "leave \"https://\" out"},
      {"providers.yaml", Provider("  defaultCacheDuration:", "  defaultCacheDuration: soon"), "providers[0].defaultCacheDuration", "must be a duration as \"12h\""},
      {"providers.yaml", Provider("- name:", "- name: /bin/helper"), "providers[0].name", "without '/'"},
      {"credentials.json", "hunter2", "keychain.credentials_file", "must be {\"credentials\": [...]}"},
      {"credentials.json", R"({"credentials":[{"username":"user","password":"hunter2"}]})", "credentials[0].match", "registry.example.com"},
      {"credentials.json", R"({"credentials":[{"match":"a","passwort":"hunter2"}]})", "credentials[0] has a key that is not", "password_file"},
      {"credentials.json", R"({"credentials":[{"match":"a","username":"u"}]})", "credentials[0]", "must have either username and password"},
      {"credentials.json", R"({"credentials":[{"match":"a","username":"u","password_file":"pw"}]})", "credentials[0]", "must be an absolute path"},
  };
  for (const Mistake& mistake : mistakes) ExpectSaid(mistake);
}

// A file that others can read is refused with the command that mends it.
TEST_F(MistakesTest, CredentialsThatOthersCanRead) {
  registry_.RequireToken("user", "hunter2");
  WriteFile("credentials.json", R"({"credentials":[{"match":")" + registry_.host() + R"(","username":"user","password":"hunter2"}]})");
  ASSERT_EQ(::chmod((dir_ / "credentials.json").c_str(), 0644), 0);
  NewClient();
  EXPECT_THAT(FetchStatus(0, 10).message(), HasSubstr("keychain.credentials_file: " + (dir_ / "credentials.json") + " can be read or written by others than its owner: chmod 600 " +
                                                      (dir_ / "credentials.json")));
  EXPECT_OK(FetchFromOther());
  ASSERT_EQ(::chmod((dir_ / "credentials.json").c_str(), 0600), 0);
  EXPECT_OK(FetchStatus(0, 10));  // no restart
}

// One broken source leaves the others as they are.
TEST_F(MistakesTest, AnotherSourceStillCounts) {
  registry_.RequireToken("user", "hunter2");
  WriteFile("config.json", "{");
  WriteFile("providers.yaml", "kind: Pod");
  WriteFile("credentials.json", R"({"credentials":[{"match":")" + registry_.host() + R"(","username":"user","password":"hunter2"}]})");
  NewClient();
  EXPECT_OK(FetchStatus(0, 10));
  WriteFile("credentials.json", "{");
  LogIn();
  NewClient();
  EXPECT_OK(FetchStatus(0, 10));
}

// A broken hosts.toml is in every error of its registry, which is asked without mirrors; others are served through theirs.
TEST_F(MistakesTest, HostsToml) {
  const std::string host = "[host.\"http://127.0.0.1:1\"]\n";
  const std::string file = HostsToml();
  const Mistake mistakes[] = {
      {file.c_str(), "[host", "line 1", "not TOML"},
      {file.c_str(), "server = 5\n", "line 1: server", "needed"},
      {file.c_str(), "server = 'ftp://x'\n", "line 1: server", "http"},
      {file.c_str(), host + "capabilities = ['fly']\n", "line 2: capabilities: \"fly\"", "use \"pull\", \"resolve\", \"push\""},
      {file.c_str(), host + "skip_verify = 'yes'\n", "line 2: skip_verify", "true or false is needed, without quotation marks"},
      {file.c_str(), host + "ca = [1]\n", "line 2: ca", "only texts"},
      {file.c_str(), host + "ca = 'gone.crt'\n", "gone.crt", "No such file"},
      {file.c_str(), host + "dial_timeout = 3\n", "line 2: dial_timeout", "\"3s\""},
      {file.c_str(), "[host.\"http://127.0.0.1:1\".header]\n'a b' = 'c'\n", "line 2: ", "header"},
  };
  WriteFile("certs/" + other_.host() + "/hosts.toml", "server = \"http://" + other_.host() + "\"\n");
  for (const Mistake& mistake : mistakes) {
    SCOPED_TRACE(mistake.text);
    registry_.ClearFaults();
    registry_.AddFault({.kind = Kind::kStatus, .times = 1, .status = 404});
    ExpectSaid(mistake);
    WriteFile(mistake.file, mistake.text);
    NewClient();
    EXPECT_OK(FetchStatus(0, 10));  // served all the same
    ASSERT_OK(RemoveAll(dir_ / mistake.file));
  }
}

}  // namespace
}  // namespace headrace::registry
