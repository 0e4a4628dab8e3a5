// web-server: what the CRI suite's web server images run. Answers every request on 0.0.0.0:PORT with a page.
//
//   NAME PORT ROOM     NAME is what it is called as: it logs that, writes /var/run/NAME.pid, and shows "NAME: master process" as its command
//                      line, as nginx does; ROOM is any word long enough for that
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr int kBacklog = 64;
// A client that sends nothing holds up the others for so long at most.
constexpr timeval kPatience{.tv_sec = 2, .tv_usec = 0};
constexpr char kAnswer[] = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 19\r\nConnection: close\r\n\r\n<h1>It serves.</h1>";

int Listen(int port) {
  int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int yes = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || ::listen(socket, kBacklog) != 0) {
    std::perror("listen");
    return -1;
  }
  return socket;
}

// Reads the request up to its empty line, then answers.
void Answer(int client) {
  ::setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);
  char request[8192];
  size_t have = 0;
  while (have < sizeof request) {
    ssize_t got = ::recv(client, request + have, sizeof request - have, 0);
    if (got <= 0) break;
    have += static_cast<size_t>(got);
    if (std::string(request, have).find("\r\n\r\n") != std::string::npos) break;
  }
  if (::send(client, kAnswer, sizeof kAnswer - 1, MSG_NOSIGNAL) > 0) ::shutdown(client, SHUT_WR);
}

}  // namespace

int main(int argc, char** argv) {
  std::string name = argv[0];
  name = name.substr(name.rfind('/') + 1);
  const int port = argc > 1 ? std::atoi(argv[1]) : 80;
  const std::string title = name + ": master process";
  const size_t room = static_cast<size_t>(argv[argc - 1] + std::strlen(argv[argc - 1]) - argv[0]);
  if (argc > 2 && title.size() < room) std::memcpy(std::memset(argv[0], 0, room), title.data(), title.size());
  ::signal(SIGPIPE, SIG_IGN);
  int server = Listen(port);
  if (server < 0) return 1;
  if (std::FILE* file = std::fopen(("/var/run/" + name + ".pid").c_str(), "w")) {
    std::fprintf(file, "%d\n", ::getpid());
    std::fclose(file);
  }
  std::printf("%s listens on port %d\n", name.c_str(), port);
  std::fflush(stdout);
  for (;;) {
    int client = ::accept4(server, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) continue;
    Answer(client);
    ::close(client);
  }
}
