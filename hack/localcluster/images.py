"""Images: from recipes to archives in the cache, and from there into the node.

An archive's name is the hash of all that went into it, so nothing is built twice and a change in the source
costs its last layer only. Base images are made from Debian packages under the names that Docker Hub uses: with
these in place the same Dockerfile that others build from the hub builds here without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import builds, node
from .builds import VERSITYGW
from .say import Problem, say, step
from .settings import CACHE, CHECKOUT, LOCAL, STATE

ARCHIVES = CACHE / "images"
LOCK = CACHE / "images.lock"
STORAGE = CACHE / "buildah"
TRUSTED = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
LOADED = STATE / "loaded-images.json"
KEEP = 3  # archives of one image in the cache

# What Debian's own slim images leave out.
_LEFT_OUT = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
)
_KEPT = ("/usr/share/doc/*/copyright",)


@dataclass(frozen=True)
class Image:
    """One image: its name, its Dockerfile, the target in it and the files it is made of."""

    name: str
    dockerfile: str
    sources: tuple[str, ...]
    bases: tuple[str, ...]
    target: str | None = None
    arguments: tuple[str, ...] = ()
    program: builds.Build | None = None  # copied into the build context
    only_tests: bool = False  # neither users nor the demo need it

    def files(self) -> Iterator[Path]:
        """Every source file, in a stable order."""
        for source in (self.dockerfile, *self.sources):
            path = CHECKOUT / source
            found = [path] if path.is_file() else path.rglob("*")
            yield from sorted(file for file in found if file.is_file() and "__pycache__" not in file.parts)

    def archive(self) -> Path:
        """Where the built image is or will be."""
        digest = hashlib.sha256("\0".join([self.name, *self.arguments, *self.bases]).encode())
        for file in self.files():
            digest.update(str(file.relative_to(CHECKOUT)).encode() + b"\0" + file.read_bytes())
        if self.program:
            digest.update(self.program.folder().name.encode())
        short = self.name.rpartition("/")[2].replace(":", "-")
        return ARCHIVES / f"{short}-{digest.hexdigest()[:16]}.tar"


PRODUCT = ("operator/tenant_backup",)
IMAGES = (
    Image(
        "localhost/tenant-backup-operator:dev",
        "Dockerfile",
        (*PRODUCT, "constraints/operator.txt"),
        ("trixie",),
        target="operator",
    ),
    Image(
        "localhost/tenant-backup-runner:dev",
        "Dockerfile",
        (*PRODUCT, "constraints/runner.txt"),
        ("trixie", "bookworm"),
        target="runner",
    ),
    Image(
        "localhost/test-postgres:15",
        "tests/images/postgres/Dockerfile",
        ("tests/images/postgres",),
        ("bookworm",),
        arguments=("DEBIAN=bookworm", "MAJOR=15"),
        only_tests=True,
    ),
    Image(
        "localhost/test-postgres:17",
        "tests/images/postgres/Dockerfile",
        ("tests/images/postgres",),
        ("trixie",),
        arguments=("DEBIAN=trixie", "MAJOR=17"),
    ),
    Image(
        "localhost/test-postgres:18",
        "tests/images/postgres/Dockerfile",
        ("tests/images/postgres",),
        ("sid",),
        arguments=("DEBIAN=sid", "MAJOR=18"),
        only_tests=True,
    ),
    Image(
        "localhost/test-mariadb:10.11",
        "tests/images/mariadb/Dockerfile",
        ("tests/images/mariadb",),
        ("bookworm",),
        arguments=("DEBIAN=bookworm",),
        only_tests=True,
    ),
    Image(
        "localhost/test-mariadb:11.8",
        "tests/images/mariadb/Dockerfile",
        ("tests/images/mariadb",),
        ("trixie",),
        arguments=("DEBIAN=trixie",),
    ),
    Image(
        "localhost/test-mysql:9",
        "tests/images/mysql/Dockerfile",
        ("tests/images/mysql",),
        ("sid",),
        only_tests=True,
    ),
    Image(
        "localhost/test-versitygw:dev",
        "tests/images/versitygw/Dockerfile",
        ("tests/images/versitygw",),
        ("trixie",),
        program=VERSITYGW,
    ),
)


def built() -> dict[Image, Path]:
    """The images whose archive for the source as it is now is in the cache."""
    return {image: archive for image in IMAGES if (archive := image.archive()).exists()}


def build(images: Sequence[Image]) -> dict[Image, Path]:
    """Build the images whose archive is not in the cache; return the archives of all."""
    # Looked at once: the source may change while we build.
    archives = {image: image.archive() for image in images}
    missing = [image for image, archive in archives.items() if not archive.exists()]
    missing.sort(key=lambda image: image.program is not None)  # somebody else may be compiling now
    for number, image in enumerate(missing, 1):
        with step(f"[{number}/{len(missing)}] building image {image.name}"):
            _build(image, archives[image])
            _prune(archives[image])
    return archives


def load(archives: dict[Image, Path]) -> None:
    """Load the images that are not in the node yet, two at a time: unpacking waits for the disk."""
    loaded = _loaded()
    missing = {image: path for image, path in archives.items() if loaded.get(image.name) != path.name}
    if not missing:
        return
    with step(f"loading {len(missing)} images"), ThreadPoolExecutor(2) as pool:
        list(pool.map(import_archive, missing.values()))
    news = {image.name: path.name for image, path in missing.items()}
    LOADED.write_text(json.dumps(loaded | news))


def write_identity(archives: dict[Image, Path]) -> None:
    """Note which operator this is: `make install` puts it on the pod, so that a new image means a new pod."""
    LOCAL.mkdir(exist_ok=True)
    (LOCAL / "operator-image").write_text(archives[IMAGES[0]].stem + "\n")


def import_archive(archive: Path) -> None:
    """Load an image archive into the node's containerd."""
    done = _ctr("images", "import", "--local", str(archive))
    if done.returncode:
        raise Problem(f"{archive} cannot be loaded: {done.stderr.strip()}")


def load_pause() -> None:
    """Load the image of a pod's first process: one static program."""
    archive = ARCHIVES / "pause.tar"
    if not archive.exists():
        _build_pause(archive)
    import_archive(archive)


def push(registry: str) -> None:
    """Build the images that users need with the builder that is there; push them as REGISTRY/name:tag."""
    builder = next((name for name in ("docker", "podman", "buildah") if _works(name)), None)
    if not builder:
        raise Problem("no image builder works here: start docker, or install podman or buildah.")
    builds.ensure(tuple(image.program for image in IMAGES if image.program))
    for image in (image for image in IMAGES if not image.only_tests):
        name = f"{registry}/{image.name.removeprefix('localhost/')}"
        with step(f"building and pushing {name} with {builder}"):
            _build_with(builder, image, name)
            _tool(builder, "push", name)
    write_identity({image: image.archive() for image in IMAGES})


def _build(image: Image, archive: Path) -> None:
    builds.ensure((image.program,) if image.program else ())
    for base in image.bases:
        _ensure_base(base)
    _build_with("buildah", image, image.name)
    _export(image.name, archive)


def _build_with(builder: str, image: Image, name: str) -> None:
    with tempfile.TemporaryDirectory() as context, tempfile.TemporaryDirectory() as trust:
        # The same recipe everywhere; buildah alone has to work without an engine and without privileges.
        here = ["--layers", "--isolation=chroot"] if builder == "buildah" else []
        secrets = _trust_of_this_machine(Path(trust))
        _tool(builder, "build", *here, *secrets, *_recipe(image, name, Path(context)))


def _recipe(image: Image, name: str, context: Path) -> list[str]:
    """The arguments of `build` that every builder understands."""
    options = [f"--build-arg={argument}" for argument in image.arguments]
    options += [f"--target={image.target}"] if image.target else []
    return [*options, f"--file={CHECKOUT / image.dockerfile}", f"--tag={name}", str(_context(image, context))]


def _context(image: Image, temporary: Path) -> Path:
    """The checkout for the product's images, a folder with just their sources for the tests' own."""
    if image.dockerfile == "Dockerfile":
        return CHECKOUT
    for source in image.sources:
        shutil.copytree(CHECKOUT / source, temporary, dirs_exist_ok=True)
    if image.program:
        shutil.copytree(image.program.folder(), temporary, dirs_exist_ok=True)
    return temporary


def _trust_of_this_machine(temporary: Path) -> list[str]:
    """Build secrets with which pip trusts whom this machine trusts; none of it enters the image."""
    if not TRUSTED.exists():
        return []
    configuration = temporary / "pip.conf"
    configuration.write_text("[global]\ncert = /run/trusted.crt\n")
    return [f"--secret=id=trusted,src={TRUSTED}", f"--secret=id=pip,src={configuration}"]


def _export(name: str, archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    _buildah("push", "--quiet", name, f"docker-archive:{partial}:{name}")
    partial.rename(archive)


def _ensure_base(release: str) -> None:
    """Make debian:RELEASE-slim from Debian packages unless the storage has it."""
    name = f"docker.io/library/debian:{release}-slim"
    if _buildah("inspect", "--type=image", name, check=False).returncode == 0:
        return
    with (
        step(f"making the base image debian:{release}-slim (about 40 s, once)"),
        tempfile.TemporaryDirectory() as folder,
    ):
        options = [f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT]
        options += [f"--dpkgopt=path-include={path}" for path in _KEPT]
        # No recommendations and no translations, as in the hub's image.
        options += ["--customize-hook=rm -rf $1/var/lib/apt/lists/* $1/var/cache/apt/* $1/var/log/*"]
        options += ['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"']
        # Its release file is renewed several times a day, and mirrors lag behind.
        options += ['--aptopt=Acquire::Check-Valid-Until "false"'] if release == "sid" else []
        _run(["mmdebstrap", "--quiet", "--variant=minbase", *options, release, f"{folder}/rootfs.tar"])
        _from_scratch(Path(folder), "ADD rootfs.tar /", name, command='CMD ["bash"]')


def _build_pause(archive: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(shutil.which("catatonit") or "/usr/bin/catatonit", f"{folder}/pause")
        _from_scratch(Path(folder), "COPY pause /pause", node.PAUSE, command='ENTRYPOINT ["/pause", "-P"]')
    _export(node.PAUSE, archive)


def _from_scratch(folder: Path, content: str, name: str, command: str) -> None:
    (folder / "Dockerfile").write_text(f"FROM scratch\n{content}\n{command}\n")
    _buildah("build", "--quiet", f"--tag={name}", str(folder))


def _prune(newest: Path) -> None:
    """Keep the newest archives of an image: each change of the source makes one."""
    alike = newest.parent.glob(f"{newest.name.rpartition('-')[0]}-*.tar")
    for archive in sorted(alike, key=lambda path: path.stat().st_mtime, reverse=True)[KEEP:]:
        archive.unlink()


def _loaded() -> dict[str, str]:
    """{image name: file name of the archive it was loaded from}."""
    return dict(json.loads(LOADED.read_text())) if LOADED.exists() else {}


def _ctr(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = builds.CONTAINERD.folder() / "ctr"
    command = [str(program), f"--address={node.SOCKET}", "--namespace=k8s.io", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _tool(builder: str, *arguments: str) -> None:
    if builder == "buildah":
        _buildah(*arguments)
    else:
        _run([builder, *arguments])


def _buildah(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    # A storage of our own: what else is on the machine stays as it is.
    places = ["--storage-driver=overlay", f"--root={STORAGE}", "--runroot=/run/tenant-backup-buildah"]
    return _run(["buildah", *places, *arguments], check=check)


def _run(command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command quietly; what it printed is shown when it fails."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if check and done.returncode:
        say(done.stdout[-8000:])
        raise Problem(f"{command[0]} failed; the lines above say why.")
    return done


def _works(builder: str) -> bool:
    """Whether a builder is installed and its engine answers."""
    return bool(shutil.which(builder)) and _run([builder, "info"], check=False).returncode == 0
