"""A Kubernetes control plane of the tests' own: etcd, API server, Job controller, garbage collector; no node.

On free loopback ports, so that it disturbs nobody and nobody's operator works in it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from hack.lab.kubectl import ROOT
from hack.localcluster.builds import ETCD, KUBERNETES
from hack.localcluster.processes import LAZY

_TOKEN = "admin-of-the-test"
OPERATOR_TOKEN = "operator-of-the-test"  # of the chart's service account, without any right
_OPERATOR = "system:serviceaccount:tenant-backup-system:tenant-backup-operator"
_CONTROLLERS = (
    "job-controller,garbage-collector-controller,namespace-controller,ttl-after-finished-controller"
)


@dataclass(frozen=True)
class Api:
    """The API server, spoken to directly; `kubeconfig` is for operators."""

    url: str
    folder: Path
    etcd: str

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of an administrator."""
        return self.folder / "kubeconfig"

    def call(
        self, method: str, path: str, body: Any = None, *, stream: bool = False, **query: str
    ) -> requests.Response:
        """Send one request and return the answer, whatever it is; `stream` leaves its body to be read."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        return _session().request(
            method,
            f"{self.url}{path}",
            json=body,
            params=query,
            headers={"Authorization": f"Bearer {_TOKEN}", "Content-Type": kind},
            verify=str(self.folder / "ca.crt"),
            timeout=30,
            stream=stream,
        )

    def watch(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """Yield the events of one watch, which is over after a second."""
        with self.call("GET", path, stream=True, watch="true", timeoutSeconds="1", **query) as answer:
            assert answer.ok, answer.text
            for line in answer.iter_lines():
                yield json.loads(line)

    def do(self, method: str, path: str, body: Any = None, **query: str) -> dict[str, Any]:
        """Send one request that must succeed, and return its document."""
        answer = self.call(method, path, body, **query)
        assert answer.ok, f"{method} {path}: {answer.text}"
        return dict(answer.json())

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Return the objects of a collection."""
        return list(self.do("GET", path, **query)["items"])


_sessions = threading.local()


def _session() -> requests.Session:
    """One per thread: a new connection for each of thousands of requests would be most of their cost."""
    if not hasattr(_sessions, "session"):
        _sessions.session = requests.Session()
    session: requests.Session = _sessions.session
    return session


@contextmanager
def control_plane(folder: Path) -> Iterator[Api]:
    """Start one in `folder`; stop it in the end."""
    for build in (ETCD, KUBERNETES):
        if not build.folder().is_dir():
            pytest.fail(f"{build.title} is not built: run `make cluster-up` first")
    etcd, peer, port, manager = _free_ports(4)
    api = Api(f"https://127.0.0.1:{port}", folder, f"http://127.0.0.1:{etcd}")
    _write_files(api)
    with ExitStack() as stack:
        stack.enter_context(_process(folder, "etcd", _etcd(folder, etcd, peer)))
        stack.enter_context(_process(folder, "apiserver", _api_server(folder, etcd, port)))
        _wait_until_ready(api)
        stack.enter_context(_process(folder, "manager", _manager(api, manager)))
        _install_types(api)
        yield api


def _etcd(folder: Path, port: int, peer: int) -> list[str]:
    client, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    binary = next(path for name in ("etcd", "server") if (path := ETCD.folder() / name).exists())
    return [
        str(binary),
        f"--data-dir={folder}/data",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--unsafe-no-fsync",
    ]


def _api_server(folder: Path, etcd: int, port: int) -> list[str]:
    return [
        str(KUBERNETES.folder() / "kube-apiserver"),
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--service-cluster-ip-range=10.98.0.0/16",
        f"--tls-cert-file={folder}/api.crt",
        f"--tls-private-key-file={folder}/api.key",
        f"--service-account-key-file={folder}/api.pub",
        f"--service-account-signing-key-file={folder}/api.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--token-auth-file={folder}/tokens",
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",
    ]


def _manager(api: Api, port: int) -> list[str]:
    return [
        str(KUBERNETES.folder() / "kube-controller-manager"),
        f"--kubeconfig={api.kubeconfig}",
        f"--controllers={_CONTROLLERS}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]


def _write_files(api: Api) -> None:
    folder = api.folder
    tokens = f'{_TOKEN},admin,1,"system:masters"\n{OPERATOR_TOKEN},{_OPERATOR},2\n'
    (folder / "tokens").write_text(tokens)
    # A handshake for each of many hundred operators: signing with RSA costs ten times as much.
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(
        folder,
        "req",
        "-x509",
        *key,
        "-keyout",
        "ca.key",
        "-out",
        "ca.crt",
        "-subj",
        "/CN=test",
        "-days",
        "30",
    )
    _openssl(folder, "req", *key, "-keyout", "api.key", "-out", "api.csr", "-subj", "/CN=api")
    _openssl(folder, "pkey", "-in", "api.key", "-pubout", "-out", "api.pub")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signer = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "names"]
    _openssl(folder, "x509", "-req", "-in", "api.csr", "-out", "api.crt", *signer)
    cluster = {"server": api.url, "certificate-authority": str(folder / "ca.crt")}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    api.kubeconfig.write_text(json.dumps(document))


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@contextmanager
def _process(folder: Path, name: str, command: list[str]) -> Iterator[None]:
    with (folder / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={"PATH": os.environ["PATH"], **LAZY}
        )
        try:
            yield
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _wait_until_ready(api: Api, path: str = "/readyz", seconds: float = 60) -> None:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        try:
            if api.call("GET", path).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.1)
    pytest.fail((api.folder / "apiserver.log").read_text()[-3000:])


def _install_types(api: Api) -> None:
    kubectl = [str(KUBERNETES.folder() / "kubectl"), f"--kubeconfig={api.kubeconfig}"]
    subprocess.run(
        [*kubectl, "apply", "--server-side", "-f", str(ROOT / "crds")], check=True, capture_output=True
    )
    wait = [*kubectl, "wait", "crd", "--all", "--for=condition=Established", "--timeout=30s"]
    subprocess.run(wait, check=True, capture_output=True)
    group = "/apis/tenantbackup.dev/v1alpha1"
    for kind in api.do("GET", group)["resources"]:
        if "/" not in kind["name"]:  # established is not yet listed: its storage fills a moment later
            _wait_until_ready(api, f"{group}/{kind['name']}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
