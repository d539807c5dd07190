"""Fixtures every test may use: the local cluster, and a namespace of one's own in it."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.lab.kubectl import LOCAL_KUBECONFIG, ROOT, Kubectl
from hack.lab.servers import namespace as namespace_object

_ON_THE_CLUSTER = {"api", "chart", "cluster", "docs", "local_cluster"}


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n 2` the local cluster belongs to one process; the other files go to whoever is free."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        own = folder if folder == "operator" else f"{folder}/{item.path.name}"  # one control plane
        group = "the local cluster" if folder in _ON_THE_CLUSTER else own
        item.add_marker(pytest.mark.xdist_group(group))


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
