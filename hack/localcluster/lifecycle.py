"""Bringing the cluster up and down, and saying how it is."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import builds, checks, images, node, pki, processes
from .locks import only_one
from .provisioner import IN_MEMORY, PROVISIONER
from .say import Problem, say, step
from .settings import CHECKOUT, KUBECONFIG, LOCAL, LOCK, NODE, OWNER, STATE


def up(*, with_images: bool = True) -> None:
    """Start the cluster unless this checkout's is running and healthy; replace whatever else is left.

    The images that are built already are loaded, unless they are not wanted.
    """
    checks.machine_is_suitable()
    builds.go_version()
    with only_one(LOCK, "the local cluster"):
        checks.programs_are_installed()
        builds.ensure(builds.NODE_BUILDS)
        if _is_ours_and_healthy():
            say("the local cluster is up already")
        else:
            _remove_leftovers()
            _start()
        _write_access()
        if with_images:
            images.load(images.built())
    say(f"ready: export KUBECONFIG={KUBECONFIG}  (kubectl and helm are in {LOCAL / 'bin'})")


def down() -> None:
    """Stop the cluster, whoever started it, and remove everything it made."""
    checks.machine_is_suitable()
    with only_one(LOCK, "the local cluster"):
        _forget_access()
        if not _exists():
            say("the local cluster is not up")
            return
        with step("stopping the local cluster"):
            node.stop_everything()


def status() -> int:
    """Say what runs; return 0 when it is this checkout's and healthy, else 1."""
    if not _exists():
        say("the local cluster is not up; start it with: make cluster-up")
        return 1
    parts = set(processes.running().values())
    missing = sorted(node.PARTS - parts)
    say(f"started by:  {_owner().get('checkout', 'unknown')}")
    say(f"running:     {', '.join(sorted(parts)) or 'nothing'}")
    if missing:
        say(f"not running: {', '.join(missing)}; start anew with: make cluster-up")
        return 1
    say(f"logs:        {STATE / 'log'}")
    say(_kubectl("get", "nodes", "-o", "wide", check=False))
    return 0 if _is_ours_and_healthy() else 1


def load(archive: Path) -> None:
    """Load an image archive into the running cluster."""
    if not archive.is_file():
        raise Problem(f"no such image archive: {archive}.")
    if not _exists():
        raise Problem(
            "the local cluster is not up: start it with `make cluster-up`, then load the image again."
        )
    images.import_archive(archive)


def tools() -> None:
    """Put helm into this checkout's `.local/bin`; needs neither root nor a cluster."""
    builds.ensure((builds.HELM,))
    _link(builds.HELM, "helm")


def build_and_load_images(*, for_tests: bool = False) -> None:
    """Build the images that users need, or all; load them when the cluster is up."""
    checks.machine_is_suitable()
    checks.programs_are_installed()
    # While they are built, the cluster may come up.
    with only_one(images.LOCK, "the cache of images"):
        archives = images.build([image for image in images.IMAGES if for_tests or not image.only_tests])
        with only_one(LOCK, "the local cluster"):
            if processes.running():
                images.load(archives)
        images.write_identity(archives)


def _exists() -> bool:
    return STATE.exists() or bool(processes.running())


def _owner() -> dict[str, Any]:
    try:
        return dict(json.loads(OWNER.read_text()))
    except (OSError, ValueError):
        return {}


def _fingerprint() -> str:
    """Changes when a program or the node's configuration does: an old node is then replaced."""
    folders = [str(build.folder()) for build in builds.NODE_BUILDS]
    sources = [Path(str(module.__file__)).read_text() for module in (node, pki)]
    return hashlib.sha256("\0".join([*folders, *sources]).encode()).hexdigest()[:16]


def _is_ours_and_healthy() -> bool:
    """Whether every part runs, was started by this checkout from these programs, and the node is Ready."""
    if _owner() != {"checkout": str(CHECKOUT), "fingerprint": _fingerprint()}:
        return False
    return not node.PARTS - set(processes.running().values()) and _node_is_ready()


def _remove_leftovers() -> None:
    if not _exists():
        return
    owner = _owner().get("checkout", str(CHECKOUT))
    whose = "a damaged or older local cluster" if owner == str(CHECKOUT) else f"the local cluster of {owner}"
    with step(f"replacing {whose}"):
        node.stop_everything()


def _start() -> None:
    with step("starting Kubernetes"):
        STATE.mkdir(mode=0o711, parents=True)
        node.create_bridge()
        try:
            checks.ports_are_free()
        except Problem:
            node.stop_everything()
            raise
        node.write_configuration()
        node.start_runtime()
        node.start_api_server()
        _wait("the API server", lambda: _kubectl("get", "--raw", "/readyz", check=False) == "ok")
        _wait("containerd", node.SOCKET.exists)
        images.load_pause()
        node.start_controllers()
        _kubectl("apply", "-f", "-", stdin=json.dumps(_first_objects()))
        _wait("the node", _node_is_ready)
        OWNER.write_text(json.dumps({"checkout": str(CHECKOUT), "fingerprint": _fingerprint()}))


def _node_is_ready() -> bool:
    ready = '{.status.conditions[?(@.type=="Ready")].status}'
    return _kubectl("get", "node", NODE, "-o", f"jsonpath={ready}", check=False) == "True"


def _first_objects() -> dict[str, Any]:
    """The storage classes, and the address of CoreDNS for whoever looks for it."""
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [_storage_class("local", True), _storage_class(IN_MEMORY)],
    }


def _storage_class(name: str, default: bool = False) -> dict[str, Any]:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def _wait(what: str, is_ready: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_ready():
        if time.monotonic() > deadline:
            raise Problem(
                f"{what} did not get ready in {seconds:.0f} s; the logs in {STATE / 'log'} say why."
            )
        time.sleep(0.1)


def _kubectl(*arguments: str, check: bool = True, stdin: str | None = None) -> str:
    program = builds.KUBERNETES.folder() / "kubectl"
    command = [
        str(program),
        f"--kubeconfig={pki.FOLDER}/admin.kubeconfig",
        "--request-timeout=10s",
        *arguments,
    ]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise Problem(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def _write_access() -> None:
    """The kubeconfig and the programs that other make targets use."""
    LOCAL.mkdir(exist_ok=True)
    KUBECONFIG.unlink(missing_ok=True)
    KUBECONFIG.touch(mode=0o600)
    KUBECONFIG.write_text(pki.kubeconfig("admin"))
    _link(builds.KUBERNETES, "kubectl")
    _link(builds.CONTAINERD, "ctr")
    _link(builds.HELM, "helm")


def _link(build: builds.Build, program: str) -> None:
    link = LOCAL / "bin" / program
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(build.folder() / program)


def _forget_access() -> None:
    KUBECONFIG.unlink(missing_ok=True)
