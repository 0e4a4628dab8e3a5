// effective-uid: says as whom it runs. The CRI suite's image for no_new_privs has it set-user-ID root.
#include <unistd.h>

#include <cstdio>

int main() {
  std::printf("Effective uid: %u\n", ::geteuid());
  return 0;
}
