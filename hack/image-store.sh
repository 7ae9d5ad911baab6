# shellcheck shell=bash
# Container images without a daemon: built by buildah from a folder that holds the image's files,
# tagged by their content, and kept as docker archives in the cache. Sourced after progress.sh.

archives="$cache/images"

# buildah_here ARGUMENT…: buildah with all its files inside the cache folder. Its cache of layer names
# goes to /var/lib/containers for root, and to XDG_DATA_HOME for anyone else.
buildah_here() {
  XDG_DATA_HOME="$cache/buildah" _CONTAINERS_ROOTLESS_UID=1 \
    buildah --root "$cache/buildah/storage" --runroot "$cache/buildah/run" --storage-driver vfs "$@"
}

# content_tag FOLDER CONFIG…: 12 hexadecimal digits of the hash of the files (names, modes and
# contents) and of the image's configuration.
content_tag() {
  local folder=$1
  shift
  {
    printf '%s\n' "$@"
    (cd "$folder" && find . -printf '%P %m %l\n' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum)
  } | sha256sum | cut -c1-12
}

# archive_of IMAGE: where the archive of localhost/NAME:TAG lies.
archive_of() {
  local name=${1##*/}
  printf '%s/%s.tar\n' "$archives" "${name/:/-}"
}

# build_image NAME FOLDER CONFIG…: makes localhost/NAME:TAG from FOLDER unless its archive is there, and
# prints this name. CONFIG are arguments of `buildah config`. The three newest archives of a NAME stay.
build_image() {
  local name=$1 folder=$2 image archive container
  shift 2
  image="localhost/$name:$(content_tag "$folder" "$@")"
  archive=$(archive_of "$image")
  if [[ ! -e $archive ]]; then
    mkdir -p "$archives"
    container=$(buildah_here from scratch)
    buildah_here copy --quiet "$container" "$folder" / >&2
    buildah_here config "$@" "$container" >&2
    rm -f "$archive.part"
    buildah_here commit --quiet --rm --omit-timestamp --format docker "$container" "docker-archive:$archive.part:$image" >&2
    mv "$archive.part" "$archive"
    find "$archives" -name "$name-????????????.tar" -printf '%T@ %p\n' | sort -rn | tail -n +4 | cut -d' ' -f2- | xargs -r rm
  fi
  printf '%s\n' "$image"
}
