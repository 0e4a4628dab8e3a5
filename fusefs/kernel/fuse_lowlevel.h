// The one place that includes libfuse, with the API version that we use.
#ifndef HEADRACE_FUSEFS_KERNEL_FUSE_LOWLEVEL_H_
#define HEADRACE_FUSEFS_KERNEL_FUSE_LOWLEVEL_H_

#define FUSE_USE_VERSION FUSE_MAKE_VERSION(3, 17)
#include <fuse_lowlevel.h>

#endif  // HEADRACE_FUSEFS_KERNEL_FUSE_LOWLEVEL_H_
