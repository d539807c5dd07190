"""Gives PersistentVolumeClaims their volumes: a folder of the node, or memory when the size has to be enforced.

Runs as a process of the node from a copy of this single file: `provisioner.py STATE`. Two watches, no memory of
its own: each event is looked at afresh, names follow from UIDs, so a restart repeats nothing and forgets nothing.
"""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PROVISIONER = "tenant-backup.local/folder"
IN_MEMORY = "limited"  # the StorageClass whose volumes cannot hold more than they asked for
_NODE_CHOSEN = "volume.kubernetes.io/selected-node"
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Api:
    """The few calls to the Kubernetes API that a provisioner needs."""

    def __init__(self, kubeconfig: dict[str, Any]) -> None:
        """Connect as the kubeconfig says, with its embedded certificates."""
        self._address = urlsplit(kubeconfig["clusters"][0]["cluster"]["server"])
        authority = base64.b64decode(kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"])
        self._tls = ssl.create_default_context(cadata=authority.decode())
        user = kubeconfig["users"][0]["user"]
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(
                base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"])
            )
            pair.flush()
            self._tls.load_cert_chain(pair.name)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> int:
        """Send one request and return its status code."""
        return self._request(method, path, body, timeout=30).status

    def watch(self, path: str) -> Iterator[dict[str, Any]]:
        """Yield every object now and at each change, until the server ends the watch."""
        answer = self._request("GET", f"{path}?watch=1&timeoutSeconds=600", None, timeout=630)
        for line in answer:
            yield json.loads(line)

    def _request(self, method: str, path: str, body: Any, timeout: float) -> http.client.HTTPResponse:
        host, port = self._address.hostname or "", self._address.port
        connection = http.client.HTTPSConnection(host, port, context=self._tls, timeout=timeout)
        connection.request(
            method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"}
        )
        return connection.getresponse()


def volume_for(claim: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The PersistentVolume for a claim: `local` rather than `hostPath`, because only that honours fsGroup."""
    meta, spec = claim["metadata"], claim["spec"]
    node = claim["metadata"]["annotations"][_NODE_CHOSEN]
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": meta["namespace"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": f"pvc-{meta['uid']}",
            "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER},
        },
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": spec["storageClassName"],
            "claimRef": {**reference, "name": meta["name"], "uid": meta["uid"]},
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


def in_bytes(quantity: str) -> int:
    """A Kubernetes quantity as a number of bytes."""
    for unit, factor in _UNITS.items():
        if quantity.endswith(unit):
            return int(float(quantity.removesuffix(unit)) * factor)
    return int(quantity)


class Provisioner:
    """What to do about one claim, and about one volume."""

    def __init__(self, api: Api, root: Path, classes: dict[str, str]) -> None:
        """`classes` maps the names of our StorageClasses to their provisioner parameter `medium`."""
        self._api, self._root, self._classes = api, root, classes

    def claim_changed(self, claim: dict[str, Any]) -> None:
        """Make the volume of a claim that waits for one and whose pod has a node."""
        spec, status = claim["spec"], claim.get("status", {})
        chosen = claim["metadata"].get("annotations", {}).get(_NODE_CHOSEN)
        if (
            spec.get("storageClassName") not in self._classes
            or status.get("phase") != "Pending"
            or not chosen
        ):
            return
        folder = self._root / f"pvc-{claim['metadata']['uid']}"
        self._make(folder, spec)
        # 409: an earlier event of this claim made it already.
        status_code = self._api.call("POST", "/api/v1/persistentvolumes", volume_for(claim, folder))
        print(
            f"volume {folder.name} for {claim['metadata']['namespace']}/{claim['metadata']['name']}: {status_code}"
        )

    def volume_changed(self, volume: dict[str, Any]) -> None:
        """Remove a volume of ours whose claim is gone, contents first."""
        ours = volume["metadata"].get("annotations", {}).get("pv.kubernetes.io/provisioned-by") == PROVISIONER
        if not ours or volume.get("status", {}).get("phase") != "Released":
            return
        folder = self._root / volume["metadata"]["name"]
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
        status_code = self._api.call("DELETE", f"/api/v1/persistentvolumes/{folder.name}")
        print(f"volume {folder.name} removed: {status_code}")

    def _make(self, folder: Path, spec: dict[str, Any]) -> None:
        if folder.exists():
            return
        folder.mkdir(parents=True)
        if self._classes[spec["storageClassName"]] == "memory":
            size = in_bytes(spec["resources"]["requests"]["storage"])
            options = f"size={size},mode=0777"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
        folder.chmod(0o777)  # pods without fsGroup write too


def follow(api: Api, path: str, react: Callable[[dict[str, Any]], None]) -> None:
    """React to every object for ever; a lost connection starts over, which shows every object again."""
    while True:
        try:
            for event in api.watch(path):
                if event["type"] in ("ADDED", "MODIFIED"):
                    react(event["object"])
        except Exception as error:
            print(f"{path}: {error!r}")
        time.sleep(0.5)


def main() -> None:
    """Follow claims and volumes until stopped."""
    state = Path(sys.argv[1])
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    api = Api(json.loads((state / "pki" / "admin.kubeconfig").read_text()))
    provisioner = Provisioner(api, state / "volumes", {"local": "disk", IN_MEMORY: "memory"})
    volumes = ("/api/v1/persistentvolumes", provisioner.volume_changed)
    threading.Thread(target=follow, args=(api, *volumes), daemon=True).start()
    follow(api, "/api/v1/persistentvolumeclaims", provisioner.claim_changed)


if __name__ == "__main__":
    main()
