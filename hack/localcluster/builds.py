"""Go programs built from the pinned modules in `go/`, cached outside the checkout by content.

The cache key covers the module's files, the flags and the version of Go, so a second checkout, or a second run,
builds nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .locks import only_one
from .say import Problem, step
from .settings import CACHE

MODULES = Path(__file__).with_name("go")
OLDEST_GO = (1, 26)


@dataclass(frozen=True)
class Build:
    """Programs of one pinned Go module; programs of the same module share what is compiled."""

    name: str
    version: str
    duration: str  # on two cores with cold caches
    flags: tuple[str, ...] = ()
    link: str = ""
    module: str = ""  # its folder, if it is not called like the build
    packages: tuple[str, ...] = ("tool",)  # all that go.mod lists as tools

    @property
    def source(self) -> Path:
        """The folder of its go.mod."""
        return MODULES / (self.module or self.name)

    @property
    def title(self) -> str:
        """How it is called in a progress line."""
        return f"{self.name} {self.version}"

    def command(self, output: Path) -> list[str]:
        """The command that builds all tools of the module into a folder."""
        return [
            "go",
            "build",
            "-trimpath",
            *self.flags,
            "-ldflags",
            f"-s -w {self.link}",
            "-o",
            f"{output}/",
            *self.packages,
        ]

    def folder(self) -> Path:
        """Where the programs are or will be."""
        pinned = [path.read_bytes() for path in sorted(self.source.rglob("*")) if path.is_file()]
        content = b"\0".join([*pinned, " ".join(self.command(Path("out"))).encode(), go_version().encode()])
        return CACHE / "bin" / f"{self.name}-{hashlib.sha256(content).hexdigest()[:16]}"


KUBERNETES = Build(
    "kubernetes",
    "1.36.3",
    "5 minutes",
    link="-X k8s.io/component-base/version.gitVersion=v1.36.3",
    packages=tuple(
        f"k8s.io/kubernetes/cmd/{name}"
        for name in (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubectl",
            "kubelet",
        )
    ),
)
# In Kubernetes' own module, with its versions of the libraries that all of them stand on.
COREDNS = Build("coredns", "1.14.7", "half a minute", module="kubernetes", packages=("./coredns",))
HELM = Build("helm", "4.2.4", "1 minute", module="kubernetes", packages=("helm.sh/helm/v4/cmd/helm",))
CONTAINERD = Build("containerd", "2.4.2", "1 minute", flags=("-tags", "no_btrfs,no_devmapper,no_zfs"))
ETCD = Build("etcd", "3.6.8", "1 minute")
VERSITYGW = Build("versitygw", "1.8.0", "1 minute")
PROMTOOL = Build("promtool", "3.15.0", "2 minutes", flags=("-tags", "remove_all_sd"))  # discovers no targets
NODE_BUILDS = (KUBERNETES, COREDNS, HELM, CONTAINERD, ETCD)


@cache
def go_version() -> str:
    """The version of the Go toolchain on PATH, e.g. "go1.26.8". Raises Problem when missing or too old."""
    wanted = ".".join(map(str, OLDEST_GO))
    if not shutil.which("go"):
        raise Problem(f"Go is missing: install Go {wanted} or newer and put it on PATH.")
    # GOTOOLCHAIN=local: never let the go command fetch another toolchain behind the user's back.
    found = subprocess.run(
        ["go", "env", "GOVERSION"], capture_output=True, text=True, check=True, env=_environment()
    )
    version = found.stdout.strip()
    numbers = tuple(int(part) for part in version.removeprefix("go").split(".")[:2] if part.isdigit())
    if numbers < OLDEST_GO:
        raise Problem(
            f"Go is too old: found {version}, install Go {wanted} or newer and put it first on PATH."
        )
    return version


def ensure(builds: tuple[Build, ...]) -> None:
    """Build what the cache has not; who finds everything there waits for nobody else's build."""
    if all(build.folder().is_dir() for build in builds):
        return
    with only_one(CACHE / "bin.lock", "the cache of binaries"):
        missing = [build for build in builds if not build.folder().is_dir()]
        for number, build in enumerate(missing, 1):
            with step(f"[{number}/{len(missing)}] building {build.title} (about {build.duration}, once)"):
                _build(build)


def _build(build: Build) -> None:
    folder = build.folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{build.name}-*"):  # by a killed build: nobody else builds now
        shutil.rmtree(left, ignore_errors=True)
    # Built aside and renamed: a killed build never leaves half a folder under the final name.
    with tempfile.TemporaryDirectory(prefix=f".{build.name}-", dir=folder.parent) as temporary:
        output = Path(temporary) / "bin"
        output.mkdir()
        done = subprocess.run(
            build.command(output),
            cwd=build.source,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise Problem(f"building {build.title} failed; the lines above say why.")
        output.rename(folder)


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOGC": "300",  # the compiler spends a sixth of its time collecting, in memory that is there
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-buildvcs=false -mod=readonly",
    }
