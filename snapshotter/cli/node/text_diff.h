// The difference of two texts in unified form (three lines around each change), for people and for patch(1). Pure; files above 20,000 lines are shown as replaced whole.
#ifndef HEADRACE_SNAPSHOTTER_CLI_NODE_TEXT_DIFF_H_
#define HEADRACE_SNAPSHOTTER_CLI_NODE_TEXT_DIFF_H_

#include <string>

namespace headrace::cli {

// "" if they are equal. Names stand in the head; "/dev/null" for a file that is not there.
std::string TextDiff(const std::string& before_name, const std::string& before, const std::string& after_name, const std::string& after);

}  // namespace headrace::cli

#endif  // HEADRACE_SNAPSHOTTER_CLI_NODE_TEXT_DIFF_H_
