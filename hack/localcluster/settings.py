"""Names, places and addresses of the local cluster."""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LOCAL = CHECKOUT / ".local"
KUBECONFIG = LOCAL / "kubeconfig"
CONTEXT = "tenant-backup-local"

# One node per machine, whichever checkout started it: its addresses and bridge exist once.
STATE = Path("/var/lib/tenant-backup-cluster")
OWNER = STATE / "owner.json"
LOCK = Path("/run/tenant-backup-cluster.lock")

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tenant-backup"

NODE = "node1"
BRIDGE = "tbk0"
NETWORK = "tenant-backup"
POD_RANGE = "10.244.0.0/16"
NODE_ADDRESS = "10.244.0.1"  # the bridge's own: pods reach the host, and what runs on it, here
SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
API = f"https://{NODE_ADDRESS}:6443"

# address, port and who listens there; checked before anything starts.
PORTS = [
    (NODE_ADDRESS, 6443, "the API server"),
    (NODE_ADDRESS, 10250, "the kubelet"),
    (NODE_ADDRESS, 53, "CoreDNS"),
    ("127.0.0.1", 12379, "etcd"),
    ("127.0.0.1", 12380, "etcd"),
    ("127.0.0.1", 10257, "the controller manager"),
    ("127.0.0.1", 10259, "the scheduler"),
    ("127.0.0.1", 10249, "kube-proxy"),
]
