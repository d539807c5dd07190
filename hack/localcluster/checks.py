"""What has to be true of the machine before anything is changed on it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from .locks import only_one
from .say import Problem, step
from .settings import CACHE, PORTS

APT_LOCK = CACHE / "apt.lock"
SMALLEST_DISK = 10 * 2**30  # bytes: binaries, build caches and images
PROGRAMS = {  # program: its Debian package
    "runc": "runc",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "catatonit": "catatonit",
    "openssl": "openssl",
}
TEST_PROGRAMS = {
    "initdb": "postgresql",
    "pgbouncer": "pgbouncer",
    "mariadbd": "mariadb-server",
    "zstd": "zstd",
    "restic": "restic",
    "umount": "mount",
    "gcc": "gcc",
    "pkg-config": "pkg-config",
    "mariadb_config": "libmariadb-dev",
}  # what tests and bench run on the host, and what builds mysqlclient
VENV_MODULE = "ensurepip"  # Debian keeps it in a package of its own


def machine_is_suitable() -> None:
    """Raise Problem unless this is Linux, we are root and there is room."""
    if sys.platform != "linux":
        raise Problem("the local cluster needs Linux: run it in a Debian or Ubuntu machine or VM.")
    if os.geteuid() != 0:
        raise Problem("the local cluster needs root (namespaces, mounts, a bridge): run this with sudo.")
    free = shutil.disk_usage("/var/lib").free
    if free < SMALLEST_DISK:
        raise Problem(
            f"too little disk: /var/lib has {free / 2**30:.1f} GiB free, 10 GiB are needed; free some."
        )


def programs_are_installed(programs: Mapping[str, str] = PROGRAMS) -> None:
    """Install the Debian packages that are missing, of {program: package}."""
    if _missing(programs):
        with only_one(APT_LOCK, "Debian packages"):
            _install(_missing(programs))


def _missing(programs: Mapping[str, str]) -> list[str]:
    postgresql = map(str, Path("/usr/lib/postgresql").glob("*/bin"))
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *postgresql])
    packages = [package for program, package in programs.items() if not shutil.which(program, path=path)]
    if not importlib.util.find_spec(VENV_MODULE):
        packages.append("python3-venv")
    if programs is TEST_PROGRAMS and not Path(sysconfig.get_path("include"), "Python.h").exists():
        packages.append("python3-dev")
    return packages


def _install(packages: list[str]) -> None:
    if not packages:
        return  # somebody else just did
    if not shutil.which("apt-get"):
        raise Problem(f"these programs are missing: install the packages {' '.join(packages)}.")
    with step(f"installing Debian packages: {' '.join(packages)}"):
        _apt("update", "-qq")
        _apt("install", "-y", "-qq", "--no-install-recommends", *packages)


def _apt(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        ["apt-get", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Problem(
            f"apt-get {arguments[0]} failed, run it by hand to see more: {done.stderr.strip()[-400:]}"
        )


def ports_are_free() -> None:
    """Raise Problem that names who holds a port we need. Our own bridge has to exist already."""
    for address, port, purpose in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                raise Problem(
                    f"port {port} on {address}, needed for {purpose}, is taken by {_holder(port)}: "
                    "stop that program and try again."
                ) from error


def _holder(port: int) -> str:
    """The program and pid that listen on a port, as `ss` knows them."""
    shown = subprocess.run(
        ["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r'\(\("(?P<name>[^"]+)",pid=(?P<pid>\d+)', shown)
    if not found:
        return "another program"
    return f"{found['name']} (pid {found['pid']}: {_command_line(found['pid'])})"


def _command_line(pid: str) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode(errors="replace")[:80]
            .strip()
        )
    except OSError:
        return "just ended"
