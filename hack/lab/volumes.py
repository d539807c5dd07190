"""Volumes with a tenant's files: claims, and pods that work on them as an application does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .kubectl import Kubectl, KubectlError

USER = 1000  # of the application, and its group
# In a folder: names, kinds, modes, sizes, times and links of all that is below it, and each file's SHA-256.
TREE = (
    "find . -mindepth 1 -not -path './.tenant-backup*' -printf '%p %y %m %s %T@ %n %l\\n' | sort;"
    " find . -type f -not -path './.tenant-backup*' -exec sha256sum {} + | sort"
)


def claim(name: str) -> dict[str, Any]:
    """A PersistentVolumeClaim of the cluster's default StorageClass."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def on_volumes(kubectl: Kubectl, pod: str, image: str, claims: Sequence[str], script: str) -> str:
    """Run a shell script once in the folder of each claim, as the application; return what it wrote.

    The application's pod has an fsGroup, as most have. Any image with a shell will do. Raises KubectlError.
    """
    container = {
        "name": "shell",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-euc", f"for volume in /volumes/*; do cd $volume; {script}\ndone"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": name, "mountPath": f"/volumes/{name}"} for name in claims],
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": security,
        "containers": [container],
        "volumes": [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims],
    }
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": spec})
    over = kubectl.wait("pod", pod, lambda found: found["status"]["phase"] in ("Succeeded", "Failed"), 120)
    written = kubectl("logs", pod)
    if over["status"]["phase"] != "Succeeded":
        raise KubectlError(f"pod {pod} failed: {written}")
    return written
