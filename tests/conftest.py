"""Fixtures every test may use: the local cluster, and a namespace of one's own in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from hack.lab.kubectl import LOCAL_KUBECONFIG, ROOT, Kubectl
from hack.lab.servers import namespace as namespace_object

_ON_THE_CLUSTER = {"api", "chart", "cluster", "docs", "local_cluster"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n 2` the local cluster belongs to one process; the other folders go to whoever is free."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        group = "the local cluster" if folder in _ON_THE_CLUSTER else f"{folder}/{item.path.name}"
        item.add_marker(pytest.mark.xdist_group(group))


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
