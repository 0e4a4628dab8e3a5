// The answers of the control API that are made of more than one value: from our own structures to messages. Pure; includes the generated code, so only control_service.cc includes this.
#ifndef HEADRACE_FUSEFS_DAEMON_CONTROL_MESSAGES_H_
#define HEADRACE_FUSEFS_DAEMON_CONTROL_MESSAGES_H_

#include <unordered_map>
#include <vector>

#include "fusefs/cache/content_store.h"
#include "fusefs/daemon/layer_manager.h"
#include "headrace/control.pb.h"

namespace headrace::daemon {

void FillSpace(const cache::CacheUsage& usage, control::v1::CacheSpace* out);
void FillLayer(const LayerState& layer, control::v1::StatusRequest::FileChoice files, control::v1::LayerStatus* out);
void FillCache(std::vector<cache::StoredContent> contents, const std::vector<cache::PinRecord>& pins, bool list, control::v1::CacheResponse* out);

}  // namespace headrace::daemon

#endif  // HEADRACE_FUSEFS_DAEMON_CONTROL_MESSAGES_H_
