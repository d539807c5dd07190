"""The node's configuration files and command lines: every fact about how its parts are set up lives here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import builds, pki, processes
from .settings import BRIDGE, NETWORK, NODE, NODE_ADDRESS, POD_RANGE, SERVICE_RANGE, STATE

SOCKET = STATE / "run" / "containerd.sock"
PAUSE = "localhost/pause:local"
AUDIT_LOG = STATE / "log" / "audit.log"  # every write to the API, one JSON line each
# In this order they are stopped; what depends on others goes first.
STOP_ORDER: tuple[tuple[str, ...], ...] = (
    ("provisioner", "scheduler", "controller-manager", "proxy", "coredns", "kubelet"),
    ("containerd",),
    ("apiserver",),
    ("etcd",),
)
PARTS = frozenset(part for group in STOP_ORDER for part in group)
ETCD_URL = "http://127.0.0.1:12379"
ETCD_PEER = "http://127.0.0.1:12380"

CONTAINERD_CONFIG = f"""version = 3
root = "{STATE}/containerd"
state = "{STATE}/run/containerd"
[grpc]
  address = "{SOCKET}"
[ttrpc]
  address = "{SOCKET}.ttrpc"
[plugins.'io.containerd.shim.v1.manager']
  socket_dir = "{STATE}/run/s"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE (a machine that is itself a container) oom scores cannot be lowered.
  restrict_oom_score_adj = true
  enable_selinux = false
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["@CNI@"]
  conf_dir = "{STATE}/cni"
  use_internal_loopback = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = "@RUNC@"
  Root = "{STATE}/run/runc"
  SystemdCgroup = false
"""

COREFILE = f"""cluster.local:53 in-addr.arpa:53 {{
  bind {NODE_ADDRESS}
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {pki.FOLDER}/admin.kubeconfig
    ttl 2
  }}
  errors
}}
# There is nothing outside: any other name does not exist, and is told so at once.
.:53 {{
  bind {NODE_ADDRESS}
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""

CNI: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": NETWORK,
    "plugins": [
        {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": f"{STATE}/cni-addresses",
                "ranges": [[{"subnet": POD_RANGE}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ],
}

KUBELET: dict[str, Any] = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "address": NODE_ADDRESS,
    "authentication": {
        "anonymous": {"enabled": False},
        "webhook": {"enabled": True},
        "x509": {"clientCAFile": f"{pki.FOLDER}/ca.crt"},
    },
    "authorization": {"mode": "Webhook"},
    "tlsCertFile": f"{pki.FOLDER}/kubelet.crt",
    "tlsPrivateKeyFile": f"{pki.FOLDER}/kubelet.key",
    "containerRuntimeEndpoint": f"unix://{SOCKET}",
    "clusterDNS": [NODE_ADDRESS],
    "clusterDomain": "cluster.local",
    "resolvConf": "/dev/null",
    # Machines with control groups version 1 and swap are common where CI runs.
    "failCgroupV1": False,
    "cgroupDriver": "cgroupfs",
    "failSwapOn": False,
    "enforceNodeAllocatable": [],
    "oomScoreAdj": -1,
    "makeIPTablesUtilChains": False,
    "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    "imageGCHighThresholdPercent": 100,
    "healthzPort": 0,
    "serializeImagePulls": False,
    "maxPods": 250,
    "podLogsDir": f"{STATE}/log/pods",
    "volumePluginDir": f"{STATE}/kubelet/plugins-exec",
    "kubeAPIQPS": 100,
    "kubeAPIBurst": 200,
}

PROXY: dict[str, Any] = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
    "mode": "nftables",
    "clientConnection": {"kubeconfig": f"{pki.FOLDER}/proxy.kubeconfig"},
    "conntrack": {"maxPerCore": 0},
    "healthzBindAddress": "",
    "metricsBindAddress": "127.0.0.1:10249",
    # Pods share a bridge: without this a reply would go straight to the asker and not be translated back.
    "nftables": {"masqueradeAll": True},
}

AUDIT: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "None"},
    ],
}


def write_configuration() -> None:
    """Write every configuration file below the state folder."""
    for name in ("log", "run", "cni", "etcd", "kubelet", "volumes"):
        (STATE / name).mkdir(parents=True, exist_ok=True)
    runc = shutil.which("runc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin") or "runc"
    containerd = CONTAINERD_CONFIG.replace("@CNI@", str(builds.CONTAINERD.folder())).replace("@RUNC@", runc)
    (STATE / "containerd.toml").write_text(containerd)
    (STATE / "Corefile").write_text(COREFILE)
    documents = {
        "cni/10-bridge.conflist": CNI,
        "kubelet.yaml": KUBELET,
        "proxy.yaml": PROXY,
        "audit.yaml": AUDIT,
    }
    for name, document in documents.items():
        (STATE / name).write_text(json.dumps(document, indent=2))
    # A copy: the provisioner must outlive the checkout that started it.
    shutil.copy(Path(__file__).with_name("provisioner.py"), STATE / "provisioner.py")
    pki.write()


def start_runtime() -> None:
    """Start containerd and etcd: they need nobody else."""
    tools = builds.CONTAINERD.folder()
    processes.start(
        "containerd",
        [f"{tools}/containerd", "-c", f"{STATE}/containerd.toml"],
        path=f"{tools}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    )
    processes.start(
        "etcd",
        [
            f"{builds.ETCD.folder()}/server",
            f"--data-dir={STATE}/etcd",
            f"--listen-client-urls={ETCD_URL}",
            f"--advertise-client-urls={ETCD_URL}",
            f"--listen-peer-urls={ETCD_PEER}",
            f"--initial-advertise-peer-urls={ETCD_PEER}",
            f"--initial-cluster=default={ETCD_PEER}",
            "--unsafe-no-fsync",  # a lost node is made anew, never recovered
            "--log-level=warn",
        ],
    )


def start_api_server() -> None:
    """Start the API server; it waits for etcd by itself."""
    _kubernetes(
        "apiserver",
        "kube-apiserver",
        f"--etcd-servers={ETCD_URL}",
        f"--bind-address={NODE_ADDRESS}",
        f"--advertise-address={NODE_ADDRESS}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--client-ca-file={pki.FOLDER}/ca.crt",
        f"--tls-cert-file={pki.FOLDER}/apiserver.crt",
        f"--tls-private-key-file={pki.FOLDER}/apiserver.key",
        f"--service-account-key-file={pki.FOLDER}/service-accounts.pub",
        f"--service-account-signing-key-file={pki.FOLDER}/service-accounts.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--kubelet-client-certificate={pki.FOLDER}/admin.crt",
        f"--kubelet-client-key={pki.FOLDER}/admin.key",
        f"--kubelet-certificate-authority={pki.FOLDER}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        f"--audit-policy-file={STATE}/audit.yaml",
        f"--audit-log-path={AUDIT_LOG}",
        "--audit-log-maxsize=200",
        "--audit-log-maxbackup=1",
    )


def start_controllers() -> None:
    """Start what needs an API server that answers."""
    _kubernetes(
        "controller-manager",
        "kube-controller-manager",
        f"--kubeconfig={pki.FOLDER}/controller-manager.kubeconfig",
        f"--service-account-private-key-file={pki.FOLDER}/service-accounts.key",
        f"--root-ca-file={pki.FOLDER}/ca.crt",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    )
    _kubernetes(
        "scheduler",
        "kube-scheduler",
        f"--kubeconfig={pki.FOLDER}/scheduler.kubeconfig",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    )
    _kubernetes(
        "kubelet",
        "kubelet",
        f"--config={STATE}/kubelet.yaml",
        f"--kubeconfig={pki.FOLDER}/kubelet.kubeconfig",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_ADDRESS}",
        f"--root-dir={STATE}/kubelet",
    )
    _kubernetes("proxy", "kube-proxy", f"--config={STATE}/proxy.yaml", f"--hostname-override={NODE}")
    processes.start("coredns", [f"{builds.COREDNS.folder()}/coredns", "-conf", f"{STATE}/Corefile"])
    processes.start("provisioner", [sys.executable, f"{STATE}/provisioner.py", f"{STATE}"])


def _kubernetes(part: str, program: str, *arguments: str) -> None:
    processes.start(part, [f"{builds.KUBERNETES.folder()}/{program}", *arguments])


def create_bridge() -> None:
    """Make the pods' bridge. It comes before everything: the node's address is the bridge's."""
    # A fixed hardware address: the kernel's would change with each pod that joins.
    _ip("link", "add", BRIDGE, "address", "02:74:62:6b:00:01", "type", "bridge")
    _ip("addr", "add", f"{NODE_ADDRESS}/16", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    # What no service answers must end here as unreachable, not leave by the machine's default route.
    _ip("route", "add", SERVICE_RANGE, "dev", BRIDGE)
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    (STATE / "ip_forward.before").write_text(forward.read_text())
    forward.write_text("1")


def stop_everything() -> None:
    """End every process, then remove what they made. Works from any state, also after a crash."""
    first, *rest = STOP_ORDER
    processes.stop(first)
    processes.kill_containers()
    for group in rest:
        processes.stop(group)
    processes.stop()  # the shims, which carry containerd's mark, and whatever else is left
    _unmount()
    _remove_network()
    _remove_control_groups()
    _remove_files()


def _unmount() -> None:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    # Last mounted first; lazily, because a killed container may still be on its way out.
    for point in reversed([point for point in points if Path(point).is_relative_to(STATE)]):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


def _remove_network() -> None:
    _ip("link", "delete", BRIDGE, check=False)
    for family in ("ip", "ip6"):
        subprocess.run(["nft", "delete", "table", family, "kube-proxy"], check=False, capture_output=True)
    with suppress(FileNotFoundError):
        Path("/proc/sys/net/ipv4/ip_forward").write_text((STATE / "ip_forward.before").read_text())


def _remove_control_groups() -> None:
    # os.walk passes over groups that vanish under it: the kernel may still be ending what was in them.
    groups = [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if "/kubepods" in folder]
    for path in sorted(groups, key=lambda path: path.count("/"), reverse=True):
        with suppress(OSError):
            Path(path).rmdir()


def _remove_files() -> None:
    shutil.rmtree(STATE, ignore_errors=True)
    # Places that are fixed in the kubelet and the CNI library.
    for link in Path("/var/log/containers").glob("*.log"):
        if not link.exists():
            link.unlink()
    shutil.rmtree("/var/lib/kubelet/device-plugins", ignore_errors=True)
    for left in Path("/var/lib/cni").glob(f"*/{NETWORK}-*"):
        left.unlink()
    for folder in ("/var/lib/kubelet", "/var/log/containers", "/var/lib/cni/results", "/var/lib/cni"):
        with suppress(OSError):
            Path(folder).rmdir()


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=not check)
