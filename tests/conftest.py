"""Fixtures every test may use: the local cluster, and a namespace of one's own in it."""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from hack.lab.kubectl import LOCAL_KUBECONFIG, ROOT, Kubectl
from hack.lab.servers import namespace as namespace_object

_ON_THE_CLUSTER = {"api", "chart", "cluster", "docs", "local_cluster"}


# A shell that starts a run in the background has it ignore Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


class _ByPlace(LoadScopeScheduling):
    """Files go to whoever is free, but the local cluster to one process only."""

    def _split_scope(self, nodeid: str) -> str:
        folder, file = _place(nodeid)
        return "the local cluster" if folder in _ON_THE_CLUSTER else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """With `-n 3` the tests on the local cluster, which mostly wait, run beside all others."""
    config.option.loadscopereorder = False  # in the order of the collection
    return _ByPlace(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that nobody waits for it in the end.

    The first of all take the local cluster down, and leave it to the others in the end.
    """
    items.sort(key=lambda item: (not item.get_closest_marker("owns_cluster"), _length(item)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print a failure when it happens: the run goes on for long, and may be cut off."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid} ({report.when})\n{report.longreprtext}", flush=True)


def _place(nodeid: str) -> tuple[str, str]:
    file = nodeid.partition("::")[0]
    return file.split("/")[1], file


def _length(item: pytest.Item) -> int:
    folder, _ = _place(item.nodeid)
    return 0 if folder in _ON_THE_CLUSTER else 1 if folder == "operator" else 2


@pytest.fixture
def short_path() -> Iterator[Path]:
    """An empty folder whose path leaves room for the names of Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """Kubectl on the running local cluster, in namespace default."""
    if not LOCAL_KUBECONFIG.exists():
        pytest.fail("the local cluster is not up: run `make cluster-up images` first")
    tool = Kubectl()
    tool("get", "--raw", "/readyz")
    return tool


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[Kubectl]:
    """Kubectl in a new restricted namespace that goes away after the test."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    kubectl.apply(namespace_object(name))
    yield kubectl.within(name)
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def installed_types(kubectl: Kubectl) -> None:
    """Our CustomResourceDefinitions, as `kubectl apply -f crds/` installs them."""
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    kubectl(
        "wait",
        "crd",
        "--for=condition=Established",
        "-l",
        "app.kubernetes.io/part-of=tenant-backup",
        "--timeout=30s",
    )
