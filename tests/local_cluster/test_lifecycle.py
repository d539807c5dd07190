"""The local cluster's own life: taken down, killed, contended for.

Each takes away the cluster that other tests share, so they come before those, in the same process.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.lab.kubectl import Kubectl
from hack.localcluster import processes
from hack.localcluster.settings import CHECKOUT, KUBECONFIG, NODE_ADDRESS, OWNER, STATE

from .test_node import claim, container, mounted

pytestmark = pytest.mark.owns_cluster
UP = "up --no-images"  # which nothing here needs


def command(name: str, checkout: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    """Run one command of the local cluster from a checkout."""
    line = [sys.executable, "-m", "hack.localcluster", *name.split()]
    return subprocess.run(
        line, cwd=checkout, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def succeed(name: str, checkout: Path = CHECKOUT) -> str:
    """Run one command that has to succeed; return what it printed."""
    done = command(name, checkout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def owner() -> str:
    """The checkout that started the running cluster."""
    return str(json.loads(OWNER.read_text())["checkout"])


def traces() -> dict[str, object]:
    """Everything a cluster could leave on the machine."""
    return {
        "state": STATE.exists(),
        "processes": processes.running(),
        "mounts": [
            line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(STATE) in line
        ],
        "links": _words("ip", "-brief", "link"),
        "namespaces": _words("ip", "netns", "list"),
        "tables": _words("nft", "list", "tables"),
        "groups": [str(path) for path in Path("/sys/fs/cgroup").glob("**/kubepods")],
        "network results": [str(path) for path in Path("/var/lib/cni").rglob("*")],
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }


def _words(*line: str) -> list[str]:
    shown = subprocess.run(line, capture_output=True, text=True, check=False).stdout
    return sorted(
        entry.split("@")[0].split()[0] if line[0] == "ip" else entry for entry in shown.splitlines()
    )


@pytest.fixture(scope="module", autouse=True)
def shared_cluster() -> Iterator[None]:
    """Whatever happens here, the cluster that others share is up again afterwards."""
    yield
    succeed("up")


@pytest.fixture
def other_checkout(tmp_path: Path) -> Path:
    """Another checkout on the same machine, with nothing in it but the local cluster's tooling."""
    here, there = CHECKOUT / "hack" / "localcluster", tmp_path / "hack" / "localcluster"
    shutil.copytree(here, there, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture
def bare_machine() -> dict[str, object]:
    """No cluster; the traces of a machine without one."""
    succeed("down")
    return traces()


@pytest.mark.usefixtures("bare_machine")
def test_a_cluster_that_comes_up_gives_access() -> None:
    succeed(UP)
    assert KUBECONFIG.stat().st_mode & 0o777 == 0o600
    assert Kubectl()("get", "--raw", "/readyz") == "ok"
    assert Kubectl()("config", "current-context").strip() == "tenant-backup-local"


def test_cluster_down_leaves_nothing_behind(bare_machine: dict[str, object]) -> None:
    succeed(UP)
    _start_a_pod_with_a_volume(Kubectl())
    succeed("down")
    assert bare_machine == traces()
    assert not KUBECONFIG.exists()


@pytest.mark.usefixtures("bare_machine")
def test_a_second_cluster_down_is_no_error() -> None:
    assert "is not up" in succeed("down")


def test_the_running_cluster_of_another_checkout_is_replaced(other_checkout: Path) -> None:
    succeed(UP, other_checkout)
    assert owner() == str(other_checkout)
    assert f"replacing the local cluster of {other_checkout}" in succeed(UP)
    assert owner() == str(CHECKOUT)


def test_the_killed_cluster_of_another_checkout_is_replaced(other_checkout: Path) -> None:
    succeed(UP, other_checkout)
    shutil.copy(other_checkout / ".local" / "kubeconfig", KUBECONFIG)
    _start_a_pod_with_a_volume(Kubectl())
    for pid in processes.running():
        os.kill(pid, signal.SIGKILL)
    assert "replacing the local cluster of" in succeed(UP)
    assert Kubectl()("get", "--raw", "/readyz") == "ok"


def test_a_part_that_died_is_noticed_and_the_cluster_is_replaced() -> None:
    succeed(UP)
    scheduler = next(pid for pid, part in processes.running().items() if part == "scheduler")
    os.kill(scheduler, signal.SIGKILL)
    assert command("status").returncode == 1
    assert "replacing a damaged or older local cluster" in succeed(UP)
    assert command("status").returncode == 0


def test_a_stranger_that_only_mentions_our_folder_is_left_alone() -> None:
    stranger = subprocess.Popen(
        [sys.executable, "-c", "input()", f"{STATE}/run/containerd.sock"], stdin=subprocess.PIPE
    )
    succeed("down")
    assert stranger.poll() is None
    stranger.communicate(b"\n")


@pytest.mark.usefixtures("bare_machine")
def test_a_port_taken_by_a_stranger_is_named_and_nothing_is_left() -> None:
    before = traces()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("0.0.0.0", 10250))
        stranger.listen()
        done = command(UP)
    assert done.returncode == 1
    assert f"port 10250 on {NODE_ADDRESS}, needed for the kubelet, is taken by" in done.stderr
    assert f"pid {os.getpid()}" in done.stderr
    assert before == traces()


@pytest.mark.usefixtures("bare_machine")
def test_two_checkouts_that_start_at_once_take_turns(other_checkout: Path) -> None:
    line = [sys.executable, "-m", "hack.localcluster", *UP.split()]
    both = [
        subprocess.Popen(line, cwd=where, stdout=subprocess.DEVNULL) for where in (CHECKOUT, other_checkout)
    ]
    assert [process.wait() for process in both] == [0, 0]
    assert owner() in (str(CHECKOUT), str(other_checkout))


def _start_a_pod_with_a_volume(kubectl: Kubectl) -> None:
    kubectl.apply(claim("small", "1Mi", "limited"))
    mounts = {"volumeMounts": [{"name": "small", "mountPath": "/small"}]}
    # The pause image is in every cluster; nothing else is in another checkout's.
    pause = container("main", ["/pause", "-P"], **mounts) | {"image": "localhost/pause:local"}
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"containers": [pause], "volumes": [mounted("small")], "securityContext": security}
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "sleeper"}, "spec": spec})
    kubectl("wait", "pod/sleeper", "--for=condition=Ready", "--timeout=60s")
