// Limits of everything that registries, token servers and configuration files may send us. Each number has its reason.
#ifndef HEADRACE_FUSEFS_REGISTRY_LIMITS_H_
#define HEADRACE_FUSEFS_REGISTRY_LIMITS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace headrace::registry {

inline constexpr size_t kReferenceBytesMax = 512;           // name 255 + tag 128 + digest 71 + separators
inline constexpr size_t kNameBytesMax = 255;                // distribution/reference: host and repository together
inline constexpr size_t kTagBytesMax = 128;                 // distribution-spec
inline constexpr uint64_t kManifestBytesMax = 4ull << 20;   // what registries accept (distribution-spec 1.1, "pushing manifests")
inline constexpr uint64_t kTokenAnswerBytesMax = 1ull << 20;
inline constexpr size_t kTokenBytesMax = 32 << 10;          // a header line that servers still take
inline constexpr size_t kErrorBodyBytesMax = 64 << 10;      // of an error answer; the rest is not read
inline constexpr size_t kErrorDetailBytesMax = 200;         // of a server's words in our messages
inline constexpr uint64_t kDockerConfigBytesMax = 1ull << 20;
inline constexpr size_t kUrlBytesMax = 16 << 10;            // presigned URLs are 1 - 4 KiB
inline constexpr size_t kHeadBytesMax = 128 << 10;          // all header lines of one answer
inline constexpr int kRedirectsMax = 10;
inline constexpr size_t kRedirectCacheMax = 4096;           // blobs
inline constexpr std::chrono::seconds kMirrorRest{30};    // a mirror that failed, or lacks something, is asked again after this
inline constexpr size_t kMirrorLacksMax = 65'536;           // (mirror, blob)
inline constexpr size_t kTokenCacheMax = 1024;              // (host, repository, scope)
inline constexpr std::chrono::seconds kRedirectLifetime{60};  // presigned URLs live minutes
inline constexpr std::chrono::seconds kTokenLifetimeDefault{60};  // token specification: without expires_in
inline constexpr std::chrono::hours kTokenLifetimeMax{24};
inline constexpr size_t kRequestsWaitingMax = 65'536;       // more than that is a caller out of control
inline constexpr uint64_t kStreamBufferBytes = 8ull << 20;  // between the network thread and a blocking caller
inline constexpr std::chrono::milliseconds kRetryPauseMin{100};
inline constexpr std::chrono::milliseconds kRetryPauseMax{10'000};
inline constexpr std::chrono::seconds kRetryAfterMax{60};  // longer wishes are cut to this: readers wait for them
inline constexpr size_t kWhyNoneBytesMax = 2048;            // of all reasons of the chain together
inline constexpr unsigned kCredentialThreads = 4;           // programs that hang at a time before others wait for them
inline constexpr int kAuthorizationsMax = 5;                // renewals for one attempt: each source may be refused once, and one token expire
inline constexpr std::chrono::seconds kRefusedFor{10};      // refused credentials are not tried again for so long
inline constexpr std::chrono::milliseconds kProgramPause{5'000};  // between two starts of a program with the same question
inline constexpr std::chrono::seconds kProgramTimeoutMax{300};
inline constexpr size_t kProgramAnswersMax = 1024;          // kept answers of a source's programs
inline constexpr size_t kProgramOutputBytesMax = 1 << 20;   // as kubelet's response limit
inline constexpr std::chrono::hours kCacheDurationMax{7 * 24};  // longer ones are cut to this
inline constexpr uint64_t kKeychainFileBytesMax = 1ull << 20;
inline constexpr size_t kProvidersMax = 100;                // of a CredentialProviderConfig, files of a directory together
inline constexpr size_t kMatchesMax = 1000;                 // patterns of one provider or one answer; entries of a static file
inline constexpr size_t kRememberedMax = 4096;              // repositories with credentials from PullImage
inline constexpr size_t kRememberedForOneMax = 4;           // pods with different secrets for one repository
inline constexpr size_t kSecretBytesMax = 64 << 10;         // a user, password or token
inline constexpr int kUploadAttemptsMax = 6;                // an upload starts anew each time

}  // namespace headrace::registry

#endif  // HEADRACE_FUSEFS_REGISTRY_LIMITS_H_
