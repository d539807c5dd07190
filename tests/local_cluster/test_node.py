"""The running local cluster does what the product relies on: pods, sockets, volumes, names, addresses."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.lab.kubectl import Kubectl, KubectlError
from hack.localcluster import lifecycle
from hack.localcluster.settings import NODE_ADDRESS, STATE

pytestmark = pytest.mark.cluster

RUNNER = "localhost/tenant-backup-runner:dev"
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
LISTEN = "s.bind('/run/join/s'); s.listen(); print(s.accept()[0].recv(9).decode())"
CONNECT = "s.connect('/run/join/s'); s.send(b'through')"


def container(name: str, command: list[str], **more: Any) -> dict[str, Any]:
    """A container that the `restricted` level admits."""
    return {"name": name, "image": RUNNER, "command": command, "securityContext": SECURITY, **more}


def run_job(
    kubectl: Kubectl, containers: list[dict[str, Any]], volumes: tuple[dict[str, Any], ...] = ()
) -> None:
    """Run a Job to its end; fails the test when it does not succeed in a minute."""
    pod = {
        "restartPolicy": "Never",
        "securityContext": POD_SECURITY,
        "automountServiceAccountToken": False,
        "containers": containers,
        "volumes": list(volumes),
    }
    spec = {"backoffLimit": 0, "template": {"spec": pod}}
    kubectl.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"}, "spec": spec})
    kubectl("wait", "job/job", "--for=condition=Complete", "--timeout=60s")


def output(kubectl: Kubectl, script: str) -> str:
    """What a shell script prints in a pod of its own, both streams."""
    run_job(kubectl, [container("main", ["sh", "-c", f"exec 2>&1; {script}; true"])])
    return kubectl("logs", "job/job").strip()


def claim(name: str, size: str, storage_class: str | None = None) -> dict[str, Any]:
    """A claim of the default class unless told."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    spec |= {"storageClassName": storage_class} if storage_class else {}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def mounted(name: str) -> dict[str, Any]:
    """The pod's volume for a claim, under the claim's name."""
    return {"name": name, "persistentVolumeClaim": {"claimName": name}}


@pytest.fixture
def web_server() -> Iterator[int]:
    """The port of a web server on the node's own address."""
    server = http.server.ThreadingHTTPServer((NODE_ADDRESS, 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


def test_containers_of_a_restricted_pod_are_joined_by_a_unix_socket(namespace: Kubectl) -> None:
    mount = {"volumeMounts": [{"name": "join", "mountPath": "/run/join"}]}
    begin = "import socket, time; s = socket.socket(socket.AF_UNIX); "
    listener = container("listen", ["python", "-c", begin + LISTEN], **mount)
    connector = container("connect", ["python", "-c", begin + "time.sleep(1); " + CONNECT], **mount)
    run_job(namespace, [listener, connector], ({"name": "join", "emptyDir": {"medium": "Memory"}},))
    assert namespace("logs", "job/job", "-c", "listen") == "through\n"


def test_a_pod_that_wants_to_be_root_is_refused_in_a_restricted_namespace(namespace: Kubectl) -> None:
    root = {"name": "main", "image": RUNNER, "securityContext": {"runAsUser": 0}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}, "spec": {"containers": [root]}}
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted'):
        namespace.apply(pod)


def test_a_claim_binds_and_its_folder_goes_with_it(namespace: Kubectl) -> None:
    namespace.apply(claim("data", "1Gi"))
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    run_job(namespace, [container("main", ["touch", "/data/file"], **mount)], (mounted("data"),))
    volume = namespace("get", "pvc/data", "-o", "jsonpath={.spec.volumeName}")
    folder = STATE / "volumes" / volume
    assert (folder / "file").exists()
    namespace("delete", "job/job", "pvc/data", "--wait=true")
    assert _is_gone(folder)


def test_a_limited_volume_holds_no_more_than_it_asked_for(namespace: Kubectl) -> None:
    namespace.apply(claim("small", "1Mi", "limited"))
    mount = {"volumeMounts": [{"name": "small", "mountPath": "/small"}]}
    fill = ["sh", "-c", "! head -c 2000000 /dev/zero > /small/file"]
    run_job(namespace, [container("main", fill, **mount)], (mounted("small"),))
    assert "No space left on device" in namespace("logs", "job/job")


def test_the_api_server_answers_pods_by_its_service_name_with_a_certificate_they_trust(
    namespace: Kubectl,
) -> None:
    # The image's Python checks certificates strictly, as the operator's client does.
    ask = (
        "import ssl, urllib.request as r; c = ssl.create_default_context(cafile='/ca/ca.crt'); "
        "print(r.urlopen('https://kubernetes.default/version', context=c).read().decode())"
    )
    mount = {"volumeMounts": [{"name": "ca", "mountPath": "/ca"}]}
    authority = {"name": "ca", "configMap": {"name": "kube-root-ca.crt"}}
    run_job(namespace, [container("main", ["python", "-c", ask], **mount)], (authority,))
    assert json.loads(namespace("logs", "job/job"))["gitVersion"] == "v1.36.3"


def test_a_name_that_does_not_exist_is_unknown_at_once(namespace: Kubectl) -> None:
    ask = "import socket, time; t = time.time(); e = None\ntry: socket.getaddrinfo('no.such.host', 1)\n"
    ask += "except OSError as x: e = x\nprint(e, int(time.time() - t))"
    run_job(namespace, [container("main", ["python", "-c", ask])])
    assert namespace("logs", "job/job") == "[Errno -2] Name or service not known 0\n"


def test_what_runs_on_the_node_itself_is_reachable_from_pods(namespace: Kubectl, web_server: int) -> None:
    ask = f"import urllib.request as r; print(r.urlopen('http://{NODE_ADDRESS}:{web_server}/').status)"
    run_job(namespace, [container("main", ["python", "-c", ask])])
    assert namespace("logs", "job/job") == "200\n"


def test_the_runner_has_the_clients_of_each_server_version(namespace: Kubectl) -> None:
    shown = output(
        namespace, "for client in /usr/lib/postgresql/*/bin/*; do $client --version | cut -d. -f1; done"
    )
    clients = ("pg_dump", "pg_restore", "psql")
    assert shown.splitlines() == [
        f"{name} (PostgreSQL) {major}" for major in (15, 17, 18) for name in clients
    ]


def test_the_images_carry_no_trust_of_the_machine_they_were_built_on(namespace: Kubectl) -> None:
    assert output(namespace, "ls /etc/pip.conf /run/trusted.crt | wc -l").splitlines()[-1] == "0"


def test_a_second_cluster_up_changes_nothing(kubectl: Kubectl) -> None:
    before = _cluster(kubectl)
    lifecycle.up()
    assert before == _cluster(kubectl)


def _cluster(kubectl: Kubectl) -> str:
    return kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")


def _is_gone(folder: Path) -> bool:
    deadline = time.monotonic() + 20
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not folder.exists()
