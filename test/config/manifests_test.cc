// Goal: the YAML that we ship is YAML, and its parts fit each other: files that are named are there, the DaemonSet's image is the one that the kustomization sets, and what its
// init container runs is what the image has.
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <string>
#include <vector>

#include "fusefs/base/file.h"
#include "test/support/matchers.h"

namespace headrace::config {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = HEADRACE_SOURCE_DIR;

std::vector<fs::path> YamlFiles() {
  std::vector<fs::path> found;
  for (const char* folder : {"config", "systemd"}) {
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
      if (entry.path().extension() == ".yaml") found.push_back(entry.path());
    }
  }
  return found;
}

TEST(ManifestsTest, AllOfThemAreParsed) {
  size_t objects = 0;
  for (const fs::path& path : YamlFiles()) {
    std::vector<YAML::Node> documents;
    ASSERT_NO_THROW(documents = YAML::LoadAllFromFile(path.string())) << path;
    for (const YAML::Node& document : documents) {
      ASSERT_TRUE(document.IsMap()) << path;
      const std::string text = path.string();
      if (text.find("config/kubernetes") == std::string::npos) continue;
      ++objects;
      EXPECT_TRUE(document["apiVersion"] && document["kind"]) << path;
      EXPECT_TRUE(document["kind"].as<std::string>() == "Kustomization" || document["metadata"]["name"]) << path;
    }
  }
  EXPECT_GE(objects, 6u);
}

TEST(ManifestsTest, TheBaseFitsTogether) {
  const fs::path folder = kRoot / "config/kubernetes";
  const YAML::Node base = YAML::LoadFile((folder / "kustomization.yaml").string());
  for (const YAML::Node& resource : base["resources"]) EXPECT_TRUE(fs::exists(folder / resource.as<std::string>())) << resource.as<std::string>();
  const std::string image = base["images"][0]["name"].as<std::string>();
  const YAML::Node pod = YAML::LoadFile((folder / "daemonset.yaml").string())["spec"]["template"]["spec"];
  for (const char* list : {"initContainers", "containers"}) {
    ASSERT_GE(pod[list].size(), 1u);
    for (const YAML::Node& container : pod[list]) EXPECT_EQ(container["image"].as<std::string>(), image);
  }
  // The script, the Containerfile that puts it into the image, and the directory of the node.
  const std::string script = pod["initContainers"][0]["args"][0].as<std::string>();
  auto containerfile = ReadFile((folder / "Containerfile").string(), 1 << 16);
  ASSERT_OK(containerfile);
  EXPECT_NE(containerfile->find("node-install /headrace/"), std::string::npos);
  EXPECT_NE(script.find("cp /headrace/* /node/new/"), std::string::npos);
  EXPECT_EQ(pod["initContainers"][0]["volumeMounts"][0]["mountPath"].as<std::string>(), "/node");
  const std::string on_node = pod["volumes"][0]["hostPath"]["path"].as<std::string>();
  EXPECT_NE(script.find(on_node + "/new/node-install " + on_node + "/new/headrace-"), std::string::npos) << script;
  EXPECT_TRUE(fs::exists(folder / "node-install"));
}

}  // namespace
}  // namespace headrace::config
