// fs-cases: every call that names, opens, changes or asks about a file, with every kind of name and every kind of file; what it answers is printed, to be
// compared with what it answers elsewhere (integration/tests/fs-readonly). Calls that would change something come in an order that keeps the others
// meaningful where changes are possible (an overlay with an upper directory): attributes first, removals last.
#ifndef HEADRACE_INTEGRATION_TOOLS_FS_CASES_H_
#define HEADRACE_INTEGRATION_TOOLS_FS_CASES_H_

#include <string>
#include <vector>

#include "integration/tools/fs/log.h"

namespace headrace::fs {

// Names in the tree of lib/fs_tree.py, and names that are not there.
const std::vector<std::string>& CasePaths();

void PathCases(Log& log);        // calls that take a name
void DescriptorCases(Log& log);  // calls that take a descriptor
void SpecialCases(Log& log);     // programs, mappings behind the end, events, sockets, bad addresses

}  // namespace headrace::fs

#endif  // HEADRACE_INTEGRATION_TOOLS_FS_CASES_H_
