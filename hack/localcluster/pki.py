"""Certificates and kubeconfig files of the node, made anew at every start."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .settings import API, API_SERVICE, CONTEXT, NODE, NODE_ADDRESS, STATE

FOLDER = STATE / "pki"
_DAYS = "3650"
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True)
class Identity:
    """A certificate to make: file name, subject, and the names it serves."""

    name: str
    subject: str
    serves: str = "DNS:client"


IDENTITIES = (
    Identity(
        "apiserver",
        "/CN=kube-apiserver",
        f"IP:{API_SERVICE},IP:{NODE_ADDRESS},IP:127.0.0.1,DNS:localhost,"
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local",
    ),
    Identity("admin", "/O=system:masters/CN=admin"),
    Identity("controller-manager", "/CN=system:kube-controller-manager"),
    Identity("scheduler", "/CN=system:kube-scheduler"),
    Identity("proxy", "/CN=system:kube-proxy"),
    Identity("kubelet", f"/O=system:nodes/CN=system:node:{NODE}", f"DNS:{NODE},IP:{NODE_ADDRESS}"),
)


def write() -> None:
    """Make the certificate authority, all certificates, the service account key and the kubeconfig files."""
    FOLDER.mkdir(mode=0o700)
    authority = ["-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=kubernetes", "-days", _DAYS]
    # Python 3.13 checks certificates strictly: an authority has a key usage, and what it signs names it.
    _openssl("req", "-x509", *_KEY, *authority, "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    for identity in IDENTITIES:
        _certify(identity)
        _file(f"{identity.name}.kubeconfig").write_text(kubeconfig(identity.name, identity.name))
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "service-accounts.key")
    _openssl("ec", "-in", "service-accounts.key", "-pubout", "-out", "service-accounts.pub")


def kubeconfig(identity: str, context: str = CONTEXT) -> str:
    """A kubeconfig with everything embedded (JSON is YAML), so that it works from anywhere on the machine."""
    user = {
        "client-certificate-data": _embedded(f"{identity}.crt"),
        "client-key-data": _embedded(f"{identity}.key"),
    }
    cluster = {"server": API, "certificate-authority-data": _embedded("ca.crt")}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": context, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }
    return json.dumps(document, indent=2) + "\n"


def _certify(identity: Identity) -> None:
    name = identity.name
    _openssl("req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", identity.subject)
    _file(f"{name}.names").write_text(f"subjectAltName={identity.serves}\nauthorityKeyIdentifier=keyid\n")
    signer = [
        "-CA",
        "ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        _DAYS,
        "-extfile",
        f"{name}.names",
    ]
    _openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signer)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=FOLDER, check=True, capture_output=True)


def _embedded(name: str) -> str:
    return base64.b64encode(_file(name).read_bytes()).decode()


def _file(name: str) -> Path:
    return FOLDER / name
