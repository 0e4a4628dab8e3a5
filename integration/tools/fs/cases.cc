// fs-cases ROOT [--user]: prints "call name<TAB>outcome" for every case, in the directory ROOT; --user: as user and group 1000, without rights.
// What the calls change stays changed. Exit code: 0, or 2 if it could not begin.
#include "integration/tools/fs/cases.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <string_view>

namespace headrace::fs {

const std::vector<std::string>& CasePaths() {
  static const std::vector<std::string> paths{
      // files, directories and others
      "d/file", "d/random", "sparse", "empty", "unreadable", "of-user/file", "private/secret", "sticky/of-user", "sticky/of-root", "setgid/file", "suid-root",
      "setuid", "capable", "script", "d", "empty-dir", "sticky", "setgid", "private", "of-user", "no-search", "no-search/file", "fifo", "char", "block", ".",
      "d/deep/..", std::string(255, 'n'),
      // links
      "other/link", "dangling", "loop-a", "loop-self", "link-to-d", "link-to-d/file", "chains/10", "chains/17", "chains/42", "other/long-link",
      // what is not there, or is not a name
      "d/none", "none/none", "d/file/below", "d/file/", "d/file/.", "other/link/", "link-to-d/", "empty/..", "", std::string(256, 'x'), "d/" + std::string(255, 'x'),
      std::string(4096, '/') + "d", "xattrs", "xattrs/file", "many/0001", "many/none", "upper/new", "upper/changed", "gone", "d/gone", "replaced/old", "replaced/new"};
  return paths;
}

namespace {

void BecomeUser() {
  constexpr uid_t kUser = 1000;
  if (::setgroups(0, nullptr) != 0 || ::setresgid(kUser, kUser, kUser) != 0 || ::setresuid(kUser, kUser, kUser) != 0) Die("cannot become a user");
  ::prctl(PR_SET_DUMPABLE, 1);  // its /proc/self/fd is its own again
}

uint64_t Fnv(std::string_view data) {
  uint64_t sum = 0xcbf29ce484222325;
  for (const char c : data) sum = (sum ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return sum;
}

int Run(int argc, char** argv) {
  if (argc < 2) Die("usage: fs-cases ROOT [--user]");
  if (::chdir(argv[1]) != 0) Die("no such root");
  ::umask(022);
  if (argc > 2 && std::string_view(argv[2]) == "--user") BecomeUser();
  Log log;
  DescriptorCases(log);
  SpecialCases(log);
  PathCases(log);
  for (const Log::Line& line : log.lines()) {
    if (line.is_data) {
      std::printf("%s\t%zu bytes %016llx\n", Printable(line.what).c_str(), line.outcome.size(), static_cast<unsigned long long>(Fnv(line.outcome)));
    } else {
      std::printf("%s\t%s\n", Printable(line.what).c_str(), Printable(line.outcome).c_str());
    }
  }
  return 0;
}

}  // namespace
}  // namespace headrace::fs

int main(int argc, char** argv) { return headrace::fs::Run(argc, argv); }
