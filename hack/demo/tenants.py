"""The demo's two tenants, as the operator is told of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyrage

from hack.lab.servers import MariaDB, Postgres, secret
from hack.lab.volumes import USER

UPLOADS = "globex-uploads"  # the claim with globex's files
API_VERSION = "tenantbackup.dev/v1alpha1"


@dataclass(frozen=True)
class DemoTenant:
    """A tenant of the demo and the key that only its owner holds."""

    name: str
    identity: str
    recipient: str

    @classmethod
    def new(cls, name: str) -> DemoTenant:
        """A tenant with a new key."""
        identity = pyrage.x25519.Identity.generate()
        return cls(name, str(identity), str(identity.to_public()))

    def secrets(self, password: str) -> list[dict[str, Any]]:
        """The Secrets that its Tenant names."""
        return [
            secret(f"{self.name}-db", username=self.name, password=password),
            secret(f"{self.name}-identity", identity=self.identity),
        ]

    def spec(self, engine: str, server: Postgres | MariaDB, users: str) -> dict[str, Any]:
        """What its Tenant says; what is secret in its table `users` never leaves the server."""
        database = {
            "engine": engine,
            "host": server.host,
            "name": self.name,
            "credentialsSecretRef": {"name": f"{self.name}-db"},
            "adminCredentialsSecretRef": {"name": f"{server.name}-admin"},
        }
        columns = [
            {"table": users, "column": "password_hash", "onRestore": "KeepLive", "else": "!"},
            {"table": users, "column": "api_token", "onRestore": "KeepLive"},
        ]
        encryption = {
            "recipients": [self.recipient],
            "identitySecretRef": {"name": f"{self.name}-identity"},
        }
        return {"database": database, "exclusions": {"columns": columns}, "encryption": encryption}


def uploads() -> dict[str, Any]:
    """The volume of globex, as its Tenant names it."""
    return {
        "name": "uploads",
        "persistentVolumeClaim": {"claimName": UPLOADS},
        "securityContext": {"runAsUser": USER, "runAsGroup": USER},
    }


def object_(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """One of our objects."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
