// Images in registries, through fusefs/registry. See image_store.h.
#ifndef HEADRACE_SNAPSHOTTER_CLI_REGISTRY_STORE_H_
#define HEADRACE_SNAPSHOTTER_CLI_REGISTRY_STORE_H_

#include <memory>

#include "snapshotter/cli/image_store.h"

namespace headrace::cli {

Result<std::unique_ptr<ImageReader>> OpenRegistryReader(const registry::Reference& reference, const StoreOptions& options);
Result<std::unique_ptr<ImageWriter>> OpenRegistryWriter(const registry::Reference& reference, const StoreOptions& options);

// Where docker and podman put credentials. A path that was asked for must be there; the usual one need not ("").
Result<std::string> DockerConfigPath(const StoreOptions& options);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_REGISTRY_STORE_H_
