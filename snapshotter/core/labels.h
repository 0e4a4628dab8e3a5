// The labels that containerd sends with Prepare (facts: containerd-and-crio.md 2.1) and those that
// we understand ourselves.
#ifndef HEADRACE_SNAPSHOTTER_CORE_LABELS_H_
#define HEADRACE_SNAPSHOTTER_CORE_LABELS_H_

namespace headrace::snapshotter {

inline constexpr char kLabelRef[] =
    "containerd.io/snapshot.ref";  // chain id of the snapshot that is to be made
inline constexpr char kLabelImageRef[] = "containerd.io/snapshot/cri.image-ref";
inline constexpr char kLabelLayerDigest[] = "containerd.io/snapshot/cri.layer-digest";
inline constexpr char kLabelManifestDigest[] = "containerd.io/snapshot/cri.manifest-digest";
// Annotation of our layers in the image manifest; containerd hands it on whatever its
// configuration.
inline constexpr char kLabelToc[] = "containerd.io/snapshot/headrace.toc";
// "off": the daemon fetches nothing of the layer in the background (`headrace build --no-fill`).
inline constexpr char kLabelFill[] = "containerd.io/snapshot/headrace.fill";
inline constexpr char kFillOff[] = "off";

// Part of the key under which the CRI plugin prepares an image volume.
inline constexpr char kImageVolumeKeyPart[] = "/image-volumes/";

}  // namespace headrace::snapshotter

#endif  // HEADRACE_SNAPSHOTTER_CORE_LABELS_H_
