// Sources of credentials: what their files and programs may say, which images they mean, and that their errors name file, key and way out and
// never a secret ("hunter2").
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "fusefs/base/text.h"
#include "fusefs/registry/credential_chain.h"
#include "fusefs/registry/docker_config.h"
#include "fusefs/registry/image_match.h"
#include "fusefs/registry/keychain.h"
#include "fusefs/registry/kubelet_providers.h"
#include "fusefs/registry/limits.h"
#include "fusefs/registry/provider_config.h"
#include "fusefs/registry/static_credentials.h"
#include "test/registry/credential_test_util.h"
#include "test/support/temp_dir.h"

namespace headrace::registry {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// Goal: matchImages means what the kubelet takes it to mean. The first rows are the examples of its documentation.
TEST(ImageMatchTest, Table) {
  struct Row {
    const char *pattern, *image;
    bool matches;
  };
  const Row rows[] = {
      {"123456789.dkr.ecr.us-east-1.amazonaws.com", "123456789.dkr.ecr.us-east-1.amazonaws.com/team/model", true},
      {"*.dkr.ecr.*.amazonaws.com", "123456789.dkr.ecr.us-east-1.amazonaws.com/x", true},
      {"*.azurecr.io", "team.azurecr.io/x", true},
      {"gcr.io", "gcr.io/project/x", true},
      {"*.*.registry.io", "a.b.registry.io/x", true},
      {"*.io", "registry.k8s.io/x", false},
      {"*.registry.io", "a.b.registry.io/x", false},
      {"registry.io:8080/path", "registry.io:8080/path/x", true},
      {"registry.io:8080/path", "registry.io:8080/other", false},
      {"registry.io:8080/path", "registry.io:8080/pathological", true},  // by bytes
      {"registry.io/path", "registry.io/pat", false},
      {"registry.io:8080", "registry.io/x", false},
      {"registry.io", "registry.io:8080/x", false},
      {"*.io:8080", "registry.io:8080/x", true},
      {"registry.*", "registry.io/x", true},
      {"app*.k8s.io", "app1.k8s.io/x", true},
      {"app*.k8s.io", "app.k8s.io/x", true},
      {"*app*.k8s.io", "my-app-1.k8s.io/x", true},
      {"app?.k8s.io", "app1.k8s.io/x", true},
      {"app?.k8s.io", "app.k8s.io/x", false},
      {"app[12].k8s.io", "app2.k8s.io/x", true},
      {"app[1-3].k8s.io", "app4.k8s.io/x", false},
      {"app[^1-3].k8s.io", "app4.k8s.io/x", true},
      {"app[!1].k8s.io", "app2.k8s.io/x", false},  // '!' is no negation
      {"app[!1].k8s.io", "app!.k8s.io/x", true},
      {"app[1.k8s.io", "app1.k8s.io/x", false},
      {"a\\*b.io", "a*b.io/x", true},
      {"a\\*b.io", "axb.io/x", false},
      {"*", "localhost/x", true},
      {"*", "a.io/x", false},
      {"docker.io", "docker.io/library/busybox", true},
      {"[::1]:5000", "[::1]:5000/x", true},
      {"a*a*a*a*a*a*a*a*b.io", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.io/x", false},
  };
  for (const Row& row : rows) EXPECT_EQ(ImageMatches(row.pattern, row.image), row.matches) << row.pattern << " " << row.image;
  for (const char* bad : {"", "/x", "https://a.io", "a[.io", "a[]b].io", "a[b-].io", "a\\", "a.io:80*"}) EXPECT_FALSE(CheckImagePattern(bad).ok()) << bad;
  EXPECT_FALSE(CheckImagePattern(std::string(5000, 'a')).ok());
  EXPECT_OK(CheckImagePattern("*.a[b-d].io:80/x"));
}

TEST(GoDurationTest, Forms) {
  EXPECT_EQ(*ParseGoDuration("12h"), std::chrono::hours(12));
  EXPECT_EQ(*ParseGoDuration("1h30m10s"), std::chrono::seconds(5410));
  EXPECT_EQ(*ParseGoDuration("1.5m"), std::chrono::seconds(90));
  EXPECT_EQ(*ParseGoDuration("0"), std::chrono::seconds(0));
  EXPECT_EQ(*ParseGoDuration("0s"), std::chrono::seconds(0));
  EXPECT_EQ(*ParseGoDuration("2500ms"), std::chrono::seconds(2));
  for (const char* bad : {"", "1", "-1s", "s", ".s", "1.2.3s", "1d", "1h ", " 1h", "999999999999h", "1e3s", "hunter2"}) EXPECT_FALSE(ParseGoDuration(bad).ok()) << bad;
}

std::string Config(const std::string& providers) {
  return "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n" + providers;
}
constexpr char kOne[] =
    "- name: helper\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  matchImages: ['*.example.com', \"h:5000\"]\n"
    "  defaultCacheDuration: 10m\n  args: [get, --x]\n  env:\n  - name: SECRET\n    value: hunter2\n";

TEST(ProviderConfigTest, YamlAndJson) {
  Result<ProviderConfig> config = ProviderConfig::Parse(Config(kOne));
  ASSERT_OK(config);
  ASSERT_EQ(config->providers.size(), 1u);
  const Provider& one = config->providers[0];
  EXPECT_EQ(one.name, "helper");
  EXPECT_THAT(one.match_images, ElementsAre("*.example.com", "h:5000"));
  EXPECT_EQ(one.default_cache_duration, std::chrono::minutes(10));
  EXPECT_THAT(one.arguments, ElementsAre("get", "--x"));
  EXPECT_THAT(one.environment, ElementsAre("SECRET=hunter2"));
  config = ProviderConfig::Parse(
      R"({"kind":"CredentialProviderConfig","apiVersion":"kubelet.config.k8s.io/v1beta1","providers":[{"name":"a",)"
      R"("apiVersion":"credentialprovider.kubelet.k8s.io/v1beta1","matchImages":["x.io"],"defaultCacheDuration":"0s"},)"
      R"({"name":"b","apiVersion":"credentialprovider.kubelet.k8s.io/v1","matchImages":["x.io"],"defaultCacheDuration":"12h0m0s",)"
      R"("tokenAttributes":{"serviceAccountTokenAudience":"x"}}]})");
  ASSERT_OK(config);
  ASSERT_EQ(config->providers.size(), 1u);
  ASSERT_EQ(config->left_out.size(), 1u);
  EXPECT_EQ(config->left_out[0].name, "b");
}

// Goal: each mistake is named by its key; no value of env or args is quoted.
TEST(ProviderConfigTest, Mistakes) {
  auto replaced = [](std::string text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  const std::string good = Config(kOne);
  const std::pair<std::string, const char*> rows[] = {
      {"", "CredentialProviderConfig"},
      {"[]", "CredentialProviderConfig"},
      {"a: [", "line"},
      {std::string(100'000, '['), "nested"},
      {"a:\n" + std::string(5000, ' ') + "- b", "indented"},
      {replaced(good, "CredentialProviderConfig", "KubeletConfiguration"), "kind must be"},
      {replaced(good, "kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v2"), "apiVersion must be"},
      {replaced(good, "providers:", "provider:"), "providers must be"},
      {replaced(good, "name: helper", "name: ../helper"), "providers[0].name"},
      {replaced(good, "name: helper", "name: a b"), "providers[0].name"},
      {replaced(good, "name: helper", "nome: helper"), "providers[0].name is missing"},
      {replaced(good, "k8s.io/v1\n  match", "k8s.io/v3\n  match"), "providers[0].apiVersion"},
      {replaced(good, "'*.example.com'", "'https://x'"), "providers[0].matchImages[0]"},
      {replaced(good, "'*.example.com'", "'a[.com'"), "providers[0].matchImages[0]"},
      {replaced(good, "['*.example.com', \"h:5000\"]", "[]"), "providers[0].matchImages"},
      {replaced(good, "10m", "ten minutes"), "providers[0].defaultCacheDuration"},
      {replaced(good, "  defaultCacheDuration: 10m\n", ""), "providers[0].defaultCacheDuration is missing"},
      {replaced(good, "[get, --x]", "{hunter2: 1}"), "providers[0].args"},
      {replaced(good, "name: SECRET", "nam: SECRET"), "providers[0].env[0].name"},
      {replaced(good, "value: hunter2", "value: [hunter2]"), "providers[0].env[0].value"},
      {good + kOne, "providers[1].name"},
  };
  for (const auto& [text, expected] : rows) {
    Result<ProviderConfig> config = ProviderConfig::Parse(text);
    ASSERT_FALSE(config.ok()) << text.substr(0, 300);
    EXPECT_THAT(config.status().message(), HasSubstr(expected));
    EXPECT_THAT(config.status().message(), Not(HasSubstr("hunter2")));
  }
}

TEST(ProviderResponseTest, FormsAndMistakes) {
  const Provider provider = ProviderConfig::Parse(Config(kOne))->providers[0];
  const std::string image = "a.example.com/team/model";
  EXPECT_EQ(ProviderRequest(provider, image),
            R"({"apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"a.example.com/team/model","kind":"CredentialProviderRequest"})");
  const std::string begin = R"({"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1",)";
  auto parse = [&](const std::string& rest) { return ParseProviderResponse(provider, image, begin + rest + "}"); };
  Result<ProgramAnswer> answer = parse(
      R"("cacheKeyType":"Registry","cacheDuration":"1h","auth":{"*.example.com":{"username":"w","password":"hunter2"},)"
      R"("https://a.example.com/v2/team":{"username":"n","password":"hunter2"},"b.example.com":{"username":"b","password":"x"}})");
  ASSERT_OK(answer);
  EXPECT_EQ(answer->lifetime, std::chrono::hours(1));
  EXPECT_EQ(answer->key, ProviderCacheKeys(provider, image)[1]);
  EXPECT_THAT(CredentialsFor(*answer, image), ElementsAre(Credentials{"n", "hunter2", ""}, Credentials{"w", "hunter2", ""}));
  EXPECT_THAT(CredentialsFor(*answer, "c.example.com/x"), ElementsAre(Credentials{"w", "hunter2", ""}));
  EXPECT_EQ(ProviderCacheKeys(provider, image)[1], ProviderCacheKeys(provider, "a.example.com/other")[1]);
  EXPECT_EQ(parse(R"("cacheKeyType":"Image","auth":{})")->lifetime, std::chrono::minutes(10));
  EXPECT_EQ(parse(R"("cacheKeyType":"Global","cacheDuration":"0s","auth":null)")->lifetime, std::chrono::seconds(0));
  EXPECT_THAT(parse(R"("cacheKeyType":"Global")")->credentials, IsEmpty());
  answer = parse(R"("cacheKeyType":"Global","auth":{"index.docker.io":{"username":"d","password":"x"}})");
  EXPECT_THAT(CredentialsFor(*answer, "docker.io/library/busybox"), ElementsAre(Credentials{"d", "x", ""}));
  EXPECT_THAT(CredentialsFor(*answer, image), IsEmpty());
  for (const char* bad :
       {R"("auth":{})", R"("cacheKeyType":"hunter2")", R"("cacheKeyType":7)", R"("cacheKeyType":"Image","cacheDuration":"hunter2")",
        R"("cacheKeyType":"Image","cacheDuration":60)", R"("cacheKeyType":"Image","auth":["hunter2"])",
        R"("cacheKeyType":"Image","auth":{"a":"hunter2"})", R"("cacheKeyType":"Image","auth":{"a":{"username":"hunter2"}})",
        R"("cacheKeyType":"Image","auth":{"a":{"username":1,"password":"hunter2"}})"}) {
    Result<ProgramAnswer> got = parse(bad);
    ASSERT_FALSE(got.ok()) << bad;
    EXPECT_THAT(got.status().message(), Not(HasSubstr("hunter2")));
  }
  for (const char* bad : {"", "hunter2", "[]", "{}", R"({"kind":"CredentialProviderRequest"})", R"({"kind":["hunter2"]})",
                          R"({"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1beta1","cacheKeyType":"Image"})"}) {
    Result<ProgramAnswer> got = ParseProviderResponse(provider, image, bad);
    ASSERT_FALSE(got.ok()) << bad;
    EXPECT_THAT(got.status().message(), Not(HasSubstr("hunter2")));
  }
}

class SourcesTest : public ::testing::Test {
 protected:
  CredentialAnswer Find(CredentialSource& source, const std::string& host, const std::string& repository = "team/model",
                        std::vector<Credentials> refused = {}) {
    CredentialAnswer answer = source.Find({host, repository, std::move(refused)}, stop_);
    EXPECT_THAT(answer.why_none, Not(HasSubstr("hunter2")));
    return answer;
  }
  // A provider program that appends a line to "starts" and prints this.
  void Provider(const std::string& name, const std::string& output) {
    ASSERT_OK(WriteFileAtomic(dir_ / (name + ".out"), output));
    test::WriteScript(dir_ / name, "cat > " + (dir_ / (name + ".in")) + "; echo >> " + (dir_ / "starts") + "; cat " + (dir_ / (name + ".out")));
  }
  static std::string Answer(const std::string& type, const std::string& duration, const std::string& user) {
    return R"({"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":")" + type +
           R"(","cacheDuration":")" + duration + R"(","auth":{"*.example.com":{"username":")" + user + R"(","password":"hunter2"}}})";
  }
  size_t starts() { return test::CountLines(dir_ / "starts"); }

  test::TempDir dir_;
  StopSignal stop_;
};

TEST_F(SourcesTest, DockerConfigSaysWhyAndReadsAgain) {
  const std::string path = dir_ / "config.json";
  CredentialStore store(path);
  EXPECT_THAT(Find(store, "h:1").why_none, HasSubstr("no credentials for this host in " + path));
  ASSERT_OK(WriteFileAtomic(path, R"({"auths":{"h:1":{"auth":")" + Base64Encode("u:hunter2") + R"("},"b":{"auth":"x"}}})"));
  EXPECT_EQ(Find(store, "h:1").credentials->password, "hunter2");
  EXPECT_THAT(Find(store, "h:1", "r", {{"u", "hunter2", ""}}).why_none, HasSubstr("refused"));
  EXPECT_THAT(Find(store, "b").why_none, HasSubstr("could not be used"));
  ASSERT_OK(WriteFileAtomic(path, "{"));
  EXPECT_THAT(Find(store, "h:1").why_none, HasSubstr("not a JSON object"));
  for (const char* bad : {R"({"credsStore":"../x"})", R"({"credsStore":"a b"})"}) {
    ASSERT_OK(WriteFileAtomic(path, bad));
    EXPECT_THAT(Find(store, "h:1").why_none, HasSubstr("credsStore"));
  }
  ASSERT_OK(WriteFileAtomic(path, R"({"credHelpers":{"h:1":"/bin/sh"}})"));
  EXPECT_THAT(Find(store, "h:1").why_none, HasSubstr("credHelpers"));
  ASSERT_OK(RemoveAll(path));
  EXPECT_FALSE(Find(store, "h:1").credentials);
  CredentialStore none("");
  EXPECT_FALSE(Find(none, "h").credentials);
}

// Goal: helpers are asked as docker asks them, in docker's order, and what they say wrongly is no secret of ours.
TEST_F(SourcesTest, DockerHelpers) {
  test::PathInFront path(dir_.path());
  const std::string config = dir_ / "config.json";
  ASSERT_OK(WriteFileAtomic(config, R"({"credHelpers":{"a.io":"one","t.io":"token"},"credsStore":"all","auths":{"c.io":{"username":"f","password":"x"},"a.io":{"username":"f","password":"x"}}})"));
  test::WriteScript(dir_ / "docker-credential-one",
                    "echo \"$1\" >> " + (dir_ / "starts") + "; read s; echo \"{\\\"ServerURL\\\":\\\"$s\\\",\\\"Username\\\":\\\"one-$s\\\",\\\"Secret\\\":\\\"hunter2\\\"}\"");
  test::WriteScript(dir_ / "docker-credential-all",
                    "read s; [ \"$s\" = https://index.docker.io/v1/ ] && echo '{\"Username\":\"hub\",\"Secret\":\"hunter2\"}' && exit; "
                    "echo credentials not found in native keychain; exit 1");
  test::WriteScript(dir_ / "docker-credential-token", "echo '{\"Username\":\"<token>\",\"Secret\":\"hunter2\"}'");
  CredentialStore store(config);
  EXPECT_EQ(Find(store, "a.io").credentials, (Credentials{"one-a.io", "hunter2", ""}));
  EXPECT_EQ(Find(store, "a.io", "other").credentials, (Credentials{"one-a.io", "hunter2", ""}));
  EXPECT_EQ(*ReadFile(dir_ / "starts", 100), "get\n") << "kept for a minute";
  EXPECT_EQ(Find(store, "docker.io").credentials, (Credentials{"hub", "hunter2", ""}));
  EXPECT_EQ(Find(store, "t.io").credentials, (Credentials{"", "", "hunter2"}));
  EXPECT_EQ(Find(store, "c.io").credentials, (Credentials{"f", "x", ""})) << "the store does not know it";
  EXPECT_EQ(Find(store, "a.io", "x", {{"one-a.io", "hunter2", ""}}).credentials, (Credentials{"f", "x", ""}));
  EXPECT_THAT(Find(store, "z.io").why_none, HasSubstr("docker-credential-all (named by " + config + "): has no credentials for this host"));
  EXPECT_FALSE(Find(store, "z.io").temporary);
}

TEST_F(SourcesTest, BrokenDockerHelpers) {
  test::PathInFront path(dir_.path());
  const std::string config = dir_ / "config.json";
  ASSERT_OK(WriteFileAtomic(config, R"({"credHelpers":{"a.io":"a","b.io":"b","c.io":"c","d.io":"d","e.io":"e","f.io":"missing"}})"));
  test::WriteScript(dir_ / "docker-credential-a", "echo hunter2");
  test::WriteScript(dir_ / "docker-credential-b", "echo '{\"Username\":\"hunter2\",\"Secret\":7}'");
  test::WriteScript(dir_ / "docker-credential-c", "echo hunter2 >&2; echo hunter2; exit 2");
  test::WriteScript(dir_ / "docker-credential-d", "echo hunter2; exec sleep 1000");
  test::WriteScript(dir_ / "docker-credential-e", "exec yes hunter2");
  CredentialStore store(config), hasty(config, milliseconds(1000));
  EXPECT_THAT(Find(store, "a.io").why_none, HasSubstr("not a JSON object"));
  EXPECT_THAT(Find(store, "b.io").why_none, HasSubstr("no usable"));
  EXPECT_THAT(Find(store, "c.io").why_none, HasSubstr("exit code 2"));
  CredentialAnswer hung = Find(hasty, "d.io");
  EXPECT_THAT(hung.why_none, HasSubstr("did not end within 1000 ms"));
  EXPECT_TRUE(hung.temporary);
  EXPECT_THAT(Find(store, "e.io").why_none, HasSubstr("more than 1"));
  EXPECT_THAT(Find(store, "f.io").why_none, HasSubstr("there is no program docker-credential-missing in $PATH"));
}

TEST_F(SourcesTest, KubeletProviders) {
  ASSERT_OK(WriteFileAtomic(dir_ / "config.yaml", Config(kOne)));
  Provider("helper", Answer("Registry", "1h", "first"));
  KubeletProviders providers(dir_ / "config.yaml", dir_.path(), milliseconds(20'000));
  EXPECT_OK(providers.Check());
  EXPECT_FALSE(Find(providers, "other.io").credentials);
  EXPECT_EQ(starts(), 0u) << "matchImages does not match";
  EXPECT_EQ(Find(providers, "a.example.com").credentials->username, "first");
  EXPECT_THAT(*ReadFile(dir_ / "helper.in", 1000), HasSubstr(R"("image":"a.example.com/team/model")"));
  EXPECT_EQ(Find(providers, "a.example.com", "another").credentials->username, "first");
  EXPECT_EQ(starts(), 1u) << "kept for the registry";
  EXPECT_EQ(Find(providers, "b.example.com").credentials->username, "first");
  EXPECT_EQ(starts(), 2u);
  // Refused: asked anew, though it is still kept; the new answer counts for all.
  Provider("helper", Answer("Registry", "1h", "second"));
  EXPECT_EQ(Find(providers, "a.example.com", "third", {{"first", "hunter2", ""}}).credentials->username, "second");
  EXPECT_EQ(starts(), 3u);
  EXPECT_EQ(Find(providers, "a.example.com", "another").credentials->username, "second");
  EXPECT_EQ(starts(), 3u);
  EXPECT_THAT(Find(providers, "a.example.com", "third", {{"second", "hunter2", ""}}).why_none, HasSubstr("refused"));
  EXPECT_EQ(starts(), 3u) << "not again within the pause";
}

// Goal: who has only a provider with tokenAttributes is told why it does not help, and what does.
TEST_F(SourcesTest, ProviderThatNeedsATokenOfThePod) {
  ASSERT_OK(WriteFileAtomic(dir_ / "config.json", R"({"kind":"CredentialProviderConfig","apiVersion":"kubelet.config.k8s.io/v1","providers":[{"name":"helper",)"
                                                  R"("apiVersion":"credentialprovider.kubelet.k8s.io/v1","matchImages":["a.example.com"],"defaultCacheDuration":"1h",)"
                                                  R"("tokenAttributes":{"serviceAccountTokenAudience":"x"}}]})"));
  KubeletProviders providers(dir_ / "config.json", dir_.path(), milliseconds(20'000));
  const CredentialAnswer answer = Find(providers, "a.example.com");
  EXPECT_FALSE(answer.credentials);
  EXPECT_THAT(answer.why_none, HasSubstr("helper"));
  EXPECT_THAT(answer.why_none, HasSubstr("tokenAttributes"));
  EXPECT_THAT(answer.why_none, HasSubstr("keychain.cri_socket"));
  EXPECT_EQ(Find(providers, "other.io").why_none, "");
  EXPECT_EQ(starts(), 0u);
}

TEST_F(SourcesTest, BrokenKubeletProviders) {
  KubeletProviders missing(dir_ / "config.yaml", dir_.path(), milliseconds(20'000));
  EXPECT_CODE(missing.Check(), StatusCode::kNotFound);
  EXPECT_THAT(Find(missing, "a.example.com").why_none, HasSubstr(dir_ / "config.yaml"));
  ASSERT_OK(WriteFileAtomic(dir_ / "config.yaml", "kind: x"));  // is read again
  EXPECT_THAT(Find(missing, "a.example.com").why_none, HasSubstr("kind must be"));
  ASSERT_OK(WriteFileAtomic(dir_ / "config.yaml", Config(kOne)));
  EXPECT_THAT(missing.Check().message(), HasSubstr("keychain.credential_provider_bin_dir"));
  EXPECT_THAT(Find(missing, "a.example.com").why_none, HasSubstr("cannot run"));
  test::WriteScript(dir_ / "helper", "echo hunter2 $SECRET >&2; echo hunter2; exit 1");
  EXPECT_THAT(Find(missing, "b.example.com").why_none, HasSubstr("the credential provider helper (" + (dir_ / "config.yaml") + ") failed"));
  EXPECT_THAT(Find(missing, "b.example.com").why_none, HasSubstr("exit code 1"));
  test::WriteScript(dir_ / "helper", "echo hunter2; exec sleep 1000");
  KubeletProviders hasty(dir_ / "config.yaml", dir_.path(), milliseconds(1000));
  CredentialAnswer hung = Find(hasty, "c.example.com");
  EXPECT_THAT(hung.why_none, HasSubstr("did not end within 1000 ms"));
  EXPECT_TRUE(hung.temporary);
}

TEST_F(SourcesTest, ProviderDirectory) {
  ASSERT_OK(MakeDirs(dir_ / "d"));
  KubeletProviders providers(dir_ / "d", dir_.path(), milliseconds(20'000));
  EXPECT_THAT(Find(providers, "a.example.com").why_none, HasSubstr("has no *.json, *.yaml or *.yml file"));
  ASSERT_OK(WriteFileAtomic(dir_ / "d/1.yaml", Config(kOne)));
  ASSERT_OK(WriteFileAtomic(dir_ / "d/readme", "hunter2"));
  Provider("helper", Answer("Global", "1h", "u"));
  EXPECT_EQ(Find(providers, "a.example.com").credentials->username, "u");
  ASSERT_OK(WriteFileAtomic(dir_ / "d/2.yaml", Config(kOne)));
  EXPECT_THAT(Find(providers, "a.example.com").why_none, HasSubstr("2.yaml: the provider helper is in two files"));
}

TEST_F(SourcesTest, StaticFile) {
  const std::string path = dir_ / "credentials.json";
  StaticCredentials source(path);
  EXPECT_CODE(source.Check(), StatusCode::kNotFound);
  ASSERT_OK(WriteFileAtomic(dir_ / "password", "hunter2\n"));
  ASSERT_OK(WriteFileAtomic(path, R"({"credentials":[{"match":"a.io/team","username":"t","password":"hunter2"},)"
                                  R"({"match":"a.io","username":"a","password_file":")" + (dir_ / "password") + R"("},)"
                                  R"({"match":"*.b.io","identity_token":"hunter2"}]})"));
  EXPECT_OK(source.Check());
  EXPECT_EQ(Find(source, "a.io").credentials, (Credentials{"t", "hunter2", ""}));
  EXPECT_EQ(Find(source, "a.io", "team/x", {{"t", "hunter2", ""}}).credentials, (Credentials{"a", "hunter2", ""}));
  EXPECT_EQ(Find(source, "x.b.io").credentials, (Credentials{"", "", "hunter2"}));
  EXPECT_THAT(Find(source, "c.io").why_none, HasSubstr("no entry of " + path));
  ASSERT_EQ(::chmod((dir_ / "password").c_str(), 0644), 0);
  EXPECT_THAT(Find(source, "a.io", "other").why_none, HasSubstr("chmod 600 " + (dir_ / "password")));
  ASSERT_EQ(::chmod(path.c_str(), 0640), 0);
  EXPECT_THAT(Find(source, "a.io").why_none, HasSubstr("chmod 600 " + path));
}

TEST(StaticParserTest, Mistakes) {
  const std::pair<const char*, const char*> rows[] = {
      {"", "must be {"},
      {"[]", "must be {"},
      {R"({"credentials":[],"x":1})", "must be {"},
      {R"({"credentials":[1]})", "credentials[0]"},
      {R"({"credentials":[{"username":"u","password":"hunter2"}]})", "credentials[0].match"},
      {R"({"credentials":[{"match":"https://a","username":"u","password":"hunter2"}]})", "credentials[0].match"},
      {R"({"credentials":[{"match":"a","username":"u"}]})", "credentials[0] must have"},
      {R"({"credentials":[{"match":"a","password":"hunter2"}]})", "credentials[0] must have"},
      {R"({"credentials":[{"match":"a","username":"u","password":"hunter2","identity_token":"x"}]})", "credentials[0] must have"},
      {R"({"credentials":[{"match":"a","username":"u","passwort":"hunter2"}]})", "credentials[0] has a key"},
      {R"({"credentials":[{"match":"a","username":"u","password":["hunter2"]}]})", "credentials[0].password must be a string"},
      {R"({"credentials":[{"match":"a","username":"u","password_file":"hunter2"}]})", "absolute path"},
  };
  for (const auto& [text, expected] : rows) {
    Status status = ParseStaticCredentials(text).status();
    ASSERT_FALSE(status.ok()) << text;
    EXPECT_THAT(status.message(), HasSubstr(expected));
    EXPECT_THAT(status.message(), Not(HasSubstr("hunter2")));
  }
}

TEST_F(SourcesTest, Remembered) {
  RememberedCredentials remembered;
  EXPECT_CODE(remembered.Remember("Not A Reference", {"u", "p", ""}), StatusCode::kInvalidArgument);
  EXPECT_CODE(remembered.Remember("a.io/team/model:1", {}), StatusCode::kInvalidArgument);
  EXPECT_CODE(remembered.Remember("a.io/team/model:1", {"u", std::string(1 << 20, 'x'), ""}), StatusCode::kInvalidArgument);
  ASSERT_OK(remembered.Remember("a.io/team/model:1", {"one", "hunter2", ""}));
  ASSERT_OK(remembered.Remember("a.io/team/model:2", {"two", "hunter2", ""}));
  ASSERT_OK(remembered.Remember("busybox", {"hub", "hunter2", ""}));
  EXPECT_EQ(Find(remembered, "a.io").credentials->username, "two") << "the newest";
  EXPECT_EQ(Find(remembered, "a.io", "team/model", {{"two", "hunter2", ""}}).credentials->username, "one");
  EXPECT_FALSE(Find(remembered, "a.io", "team/other").credentials) << "another's secret opens nothing";
  EXPECT_EQ(Find(remembered, "registry-1.docker.io", "library/busybox").credentials->username, "hub");
  for (int i = 0; i < 10; ++i) ASSERT_OK(remembered.Remember("a.io/team/model", {"u" + std::to_string(i), "p", ""}));
  EXPECT_EQ(Find(remembered, "a.io", "team/model", {{"u9", "p", ""}, {"u8", "p", ""}, {"u7", "p", ""}}).credentials->username, "u6");
  EXPECT_FALSE(Find(remembered, "a.io", "team/model", {{"u9", "p", ""}, {"u8", "p", ""}, {"u7", "p", ""}, {"u6", "p", ""}}).credentials);
  for (size_t i = 0; i < kRememberedMax + 10; ++i) ASSERT_OK(remembered.Remember("b.io/r" + std::to_string(i), {"u", "p", ""}));
  EXPECT_EQ(remembered.size(), kRememberedMax);
  EXPECT_FALSE(Find(remembered, "a.io").credentials) << "the oldest went";
}

// Goal: the order that the README promises; a broken source is no obstacle to the next; all reasons are told.
TEST_F(SourcesTest, ChainOrder) {
  KeychainOptions options;
  options.remembered = std::make_shared<RememberedCredentials>();
  options.provider_config = dir_ / "config.yaml";
  options.provider_programs = dir_.path();
  options.docker_config = dir_ / "config.json";
  options.credentials_file = dir_ / "static.json";
  CredentialChain chain(MakeCredentialSources(options));
  const std::string host = "a.example.com";
  CredentialAnswer none = chain.Walk({host, "team/model", {}});
  for (const char* part : {"config.yaml", "config.json", "static.json"}) EXPECT_THAT(none.why_none, HasSubstr(part));
  auto found = [&](std::vector<Credentials> refused) {
    CredentialAnswer answer = chain.Walk({host, "team/model", std::move(refused)});
    return answer.credentials ? answer.credentials->username : "none: " + answer.why_none;
  };
  ASSERT_OK(WriteFileAtomic(dir_ / "static.json", R"({"credentials":[{"match":"*.example.com","username":"static","password":"hunter2"}]})"));
  EXPECT_EQ(found({}), "static");
  ASSERT_OK(WriteFileAtomic(dir_ / "config.json", R"({"auths":{"a.example.com":{"username":"docker","password":"hunter2"}}})"));
  EXPECT_EQ(found({}), "docker");
  ASSERT_OK(WriteFileAtomic(dir_ / "config.yaml", Config(kOne)));
  Provider("helper", Answer("Image", "1h", "kubelet"));
  EXPECT_EQ(found({}), "kubelet");
  ASSERT_OK(options.remembered->Remember(host + "/team/model:1", {"cri", "hunter2", ""}));
  EXPECT_EQ(found({}), "cri");
  std::vector<Credentials> refused;
  for (const char* user : {"cri", "kubelet", "docker", "static"}) {
    EXPECT_EQ(found(refused), user);
    refused.push_back({user, "hunter2", ""});
  }
  EXPECT_THAT(found(refused), HasSubstr("none: "));
  EXPECT_THAT(found(refused), HasSubstr("refused"));
}

// Goal: Stop ends a chain whose program hangs, at once, and what waits is answered.
TEST_F(SourcesTest, StopAnswersEverything) {
  ASSERT_OK(WriteFileAtomic(dir_ / "config.yaml", Config(kOne)));
  test::WriteScript(dir_ / "helper", "exec sleep 1000");
  std::atomic<int> answers{0};
  CredentialChain chain({std::make_shared<KubeletProviders>(dir_ / "config.yaml", dir_.path(), milliseconds(300'000))});
  for (int i = 0; i < 20; ++i) chain.Ask({"a.example.com", "r" + std::to_string(i), {}}, [&](CredentialAnswer) { ++answers; });
  const auto start = std::chrono::steady_clock::now();
  chain.Stop();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  EXPECT_EQ(answers, 20);
  chain.Ask({"a.example.com", "late", {}}, [&](CredentialAnswer) { ++answers; });
  EXPECT_EQ(answers, 21);
}

TEST(KeychainTest, SettingsThatBelongTogether) {
  std::vector<std::string> warnings;
  KeychainOptions options;
  EXPECT_OK(CheckKeychain(options, &warnings));
  options.provider_config = "/etc/x.yaml";
  Status status = CheckKeychain(options, &warnings);
  EXPECT_CODE(status, StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("keychain.credential_provider_bin_dir"));
  options.provider_programs = "relative";
  EXPECT_CODE(CheckKeychain(options, &warnings), StatusCode::kInvalidArgument);
  options.provider_programs = "/nonexistent";
  options.credentials_file = "/nonexistent/c.json";
  EXPECT_OK(CheckKeychain(options, &warnings));
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("/etc/x.yaml"), HasSubstr("/nonexistent/c.json")));
}

}  // namespace
}  // namespace headrace::registry
