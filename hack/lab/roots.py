"""File systems of the test images on this machine: servers of several versions beside one another, without a cluster."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from hack.localcluster import images
from hack.localcluster.locks import only_one
from hack.localcluster.settings import CACHE

ROOTS = CACHE / "roots"
USER = 65532  # the images' own
_KEEP = 2  # versions of one image
# A mount namespace of its own: what it mounts is gone with its last process. `exec` keeps the pid.
_ENTER = """
set -eu
root=$1 user=$2; shift 2
mount -t tmpfs tmpfs "$root/tmp"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do mkdir -p "$root$1"; mount --bind "$1" "$root$1"; shift; done
shift
export HOME=/tmp
exec chroot --userspec="$user:$user" "$root" "$@"
"""


def root(name: str) -> Path:
    """Return the file system of a test image (`test-mysql:9`), unpacked once; the image is built if need be.

    Raises:
        Problem: it cannot be built.
    """
    image = next(image for image in images.IMAGES if image.name == f"localhost/{name}")
    with only_one(images.LOCK, "the cache of images"):
        archive = images.build([image])[image]
        place = ROOTS / archive.stem
        if not place.exists():
            _unpack(archive, place)
            _prune(place)
    return place


def inside(place: Path, *folders: Path) -> list[str]:
    """The words before a command that run it in a file system, as the images' user.

    It sees these folders of this machine at their own paths, /proc, /dev and an empty /tmp, and shares network and pids.
    """
    enter = ["unshare", "--mount", "--propagation=private", "sh", "-c", _ENTER, "enter"]
    return [*enter, str(place), str(USER), *map(str, folders), "--"]


def _unpack(archive: Path, place: Path) -> None:
    """Put the layers of an image over one another; our images delete nothing that a lower layer has."""
    ROOTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOTS, prefix="layers-") as folder:
        subprocess.run(["tar", "--extract", f"--file={archive}", f"--directory={folder}"], check=True)
        partial = Path(folder) / "root"
        partial.mkdir()
        for layer in json.loads((Path(folder) / "manifest.json").read_text())[0]["Layers"]:
            blob = Path(folder) / layer
            subprocess.run(["tar", "--extract", f"--file={blob}", f"--directory={partial}"], check=True)
            blob.unlink()
        partial.chmod(0o755)
        partial.rename(place)


def _prune(newest: Path) -> None:
    """Keep the newest file systems of an image; a process that runs in an older one keeps its open files."""
    alike = newest.parent.glob(f"{newest.name.rpartition('-')[0]}-*")
    for old in sorted(alike, key=lambda path: path.stat().st_mtime, reverse=True)[_KEEP:]:
        shutil.rmtree(old)
