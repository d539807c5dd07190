"""The night after the cluster was lost: the runner image, the store, the identity and the recovery sheet."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from hack.lab.kubectl import LOCAL_KUBECONFIG, ROOT, Kubectl
from tests.cluster.conftest import Room

pytestmark = pytest.mark.cluster
_RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@dataclass
class Night:
    """A machine with the command line and nothing of the operator's."""

    kubectl: Kubectl

    def shell(self, script: str, stdin: str | None = None) -> str:
        """Run a script on it."""
        return self.kubectl("exec", "-i", "night", "--", "sh", "-euc", script, stdin=stdin)


@pytest.fixture
def night(room: Room) -> Night:
    """A pod of the runner image: no ServiceAccount, no Secret of the tenant's, the bucket's key as environment."""
    keys = {"AWS_ACCESS_KEY_ID": room.s3.access_key, "AWS_SECRET_ACCESS_KEY": room.s3.secret_key}
    container: dict[str, Any] = {
        "name": "night",
        "image": "localhost/tenant-backup-runner:dev",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "600"],
        "env": [{"name": name, "value": value} for name, value in keys.items()],
        "securityContext": _RESTRICTED,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    room.kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "night"}, "spec": spec})
    room.kubectl("wait", "pod/night", "--for=condition=Ready", "--timeout=60s")
    return Night(room.kubectl)


def test_a_backup_of_the_operator_outlives_it(room: Room, night: Night) -> None:
    """Listed, verified, exported and restored with nothing but the sheet, the identity and the bucket."""
    status = room.back_up("b1")["status"]
    assert status["state"] == "Succeeded", status
    sheet = _sheet(room)
    url, trust = _of(sheet, "store"), _of(sheet, "public signing key")
    # From here on nothing of the cluster's own knowledge is used: only the sheet and the two keys.
    night.shell("cat > key.txt", stdin=str(room.identity))
    night.shell("cat > password", stdin=room.server.password)
    reading = f"'{url}' latest --trust {trust} --identity key.txt"
    listed = json.loads(night.shell(f"tenant-backup list '{url}' --trust {trust} --json"))["backups"]
    assert [(each["backupId"], each["signature"]) for each in listed] == [(status["backupId"], "good")]
    verified = json.loads(night.shell(f"tenant-backup verify {reading} --json"))
    assert (verified["health"], verified["rows"]) == ("Healthy", 6000)

    login = f"--host {room.server.host} --user postgres --password-file password"
    night.shell(f"tenant-backup restore {reading} {login} --database {room.database}_restored")
    assert room.server.fingerprint(f"{room.database}_restored") == room.server.fingerprint(room.database)

    script = night.shell(f"tenant-backup export {reading} -o out.sql >&2; cat out.sql")
    room.server.sql(f'CREATE DATABASE "{room.database}_loaded"')
    room.server.sql(script, f"{room.database}_loaded")
    assert room.server.fingerprint(f"{room.database}_loaded") == room.server.fingerprint(room.database)


def test_recovered_keys_are_the_secret_that_the_operator_made(room: Room, night: Night) -> None:
    """Name, labels and keys: `kubectl create` puts it back."""
    room.back_up("b1")
    tenant = room.kubectl.get("tnt", "acme")
    assert tenant is not None
    name, trust = tenant["status"]["keySecret"], tenant["status"]["signingKey"]
    made = room.kubectl.get("secret", name)
    assert made is not None
    night.shell("cat > key.txt", stdin=str(room.identity))
    text = night.shell(
        f"tenant-backup recover-keys '{_url(room)}' --identity key.txt --trust ed25519:{trust}"
    )
    room.kubectl("delete", "secret", name)
    room.kubectl("create", "-f", "-", stdin=text)
    again = room.kubectl.get("secret", name)
    assert again is not None
    assert (again["data"], again["metadata"]["labels"]) == (made["data"], made["metadata"]["labels"])


def _sheet(room: Room) -> str:
    """Print the sheet as an administrator does: the key from the cluster, the store through a tunnel."""
    with _tunnel(room) as endpoint:
        url = _url(room, endpoint)
        command = [sys.executable, "-m", "tenant_backup.cli", "recovery-sheet", url, "--from-cluster"]
        keys = {"AWS_ACCESS_KEY_ID": room.s3.access_key, "AWS_SECRET_ACCESS_KEY": room.s3.secret_key}
        path = f"{ROOT}/.local/bin:{os.environ['PATH']}"
        done = subprocess.run(
            [*command, f"{room.kubectl.namespace}/acme"],
            env={**os.environ, **keys, "KUBECONFIG": str(LOCAL_KUBECONFIG), "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.replace(endpoint, room.s3.endpoint)


@contextmanager
def _tunnel(room: Room) -> Iterator[str]:
    process = room.s3.kubectl.popen(
        "port-forward", f"deploy/{room.s3.name}", ":7070", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        found = re.search(rb"127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found
        yield f"http://127.0.0.1:{int(found[1])}"
    finally:
        process.kill()
        process.wait()


def _url(room: Room, endpoint: str = "") -> str:
    slug = room.database.replace("_", "-")
    return f"s3://backups/{room.prefix}/{slug}?endpoint={endpoint or room.s3.endpoint}&region=us-east-1"


def _of(sheet: str, what: str) -> str:
    """A value of the sheet's table."""
    found = re.search(rf"^\| {what} \| `(.*)` \|$", sheet, re.MULTILINE)
    assert found
    return found[1]
