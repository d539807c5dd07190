"""The whole product on the real cluster: operator from the chart, databases and S3 server as pods."""

from __future__ import annotations

import datetime
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyrage
import pytest

from hack.lab.kubectl import ROOT, Kubectl, condition, is_over
from hack.lab.servers import S3, Postgres, namespace, postgres, s3, secret

API_VERSION = "tenantbackup.dev/v1alpha1"
SERVERS = "lab-servers"
SMALL_SQL = """
CREATE TABLE person (id int PRIMARY KEY, name text NOT NULL, password text NOT NULL);
INSERT INTO person SELECT i, 'person ' || i, 'secret-' || md5(i::text) FROM generate_series(1, 1000) i;
CREATE TABLE note (id int PRIMARY KEY, person_id int REFERENCES person, body text);
INSERT INTO note SELECT i, 1 + i % 1000, repeat('grüße ' || i, 10) FROM generate_series(1, 5000) i;
"""


@pytest.fixture(scope="session")
def operator(kubectl: Kubectl) -> Kubectl:
    """The operator as users install it: `make install`."""
    subprocess.run(["make", "-s", "install"], cwd=ROOT, check=True)
    return kubectl.within("tenant-backup-system")


@pytest.fixture(scope="session")
def servers(kubectl: Kubectl) -> Iterator[Kubectl]:
    """A namespace for the servers that many tests share."""
    kubectl.apply(namespace(SERVERS))
    yield kubectl.within(SERVERS)
    kubectl("delete", "namespace", SERVERS, "--wait=false")


@pytest.fixture(scope="session")
def postgres_17(servers: Kubectl) -> Postgres:
    """A shared PostgreSQL 17."""
    return postgres(servers, "pg17", "localhost/test-postgres:17")


@pytest.fixture(scope="session")
def s3_server(servers: Kubectl) -> S3:
    """A shared S3 server with one bucket, `backups`."""
    return s3(servers, "s3", "localhost/test-versitygw:dev", "backups")


@dataclass
class Room:
    """One test's namespace: a tenant with its own database and a store with its own prefix."""

    kubectl: Kubectl
    server: Postgres
    s3: S3
    database: str
    prefix: str
    password: str = "correct horse"
    identity: pyrage.x25519.Identity = field(default_factory=pyrage.x25519.Identity.generate)

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Apply one of our objects."""
        document = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.kubectl.apply(document)

    def tenant_spec(self, **database: Any) -> dict[str, Any]:
        """The spec of the tenant; keyword arguments replace fields of `database`."""
        where = {
            "engine": "PostgreSQL",
            "host": self.server.host,
            "name": self.database,
            "credentialsSecretRef": {"name": "db"},
            "adminCredentialsSecretRef": {"name": "admin"},
        }
        encryption = {
            "recipients": [str(self.identity.to_public())],
            "identitySecretRef": {"name": "identity"},
        }
        return {
            "slug": self.database.replace("_", "-"),
            "database": where | database,
            "encryption": encryption,
        }

    def create_secrets(self) -> None:
        """The Secrets that the tenant names."""
        self.kubectl.apply(
            secret("db", username=self.database, password=self.password),
            secret("admin", username="postgres", password=self.server.password),
            secret("identity", identity=str(self.identity)),
        )

    def create_tenant(self, name: str = "acme", **database: Any) -> None:
        """The tenant `acme`."""
        self.apply("Tenant", name, self.tenant_spec(**database))

    def create_store(self, name: str = "prod") -> None:
        """The store `prod`."""
        self.kubectl.apply(*self.s3.store(name, "backups", self.prefix))

    def back_up(self, name: str, seconds: float = 60, **spec: Any) -> dict[str, Any]:
        """Create a TenantBackup and return it once it is over, whatever its end."""
        self.apply(
            "TenantBackup", name, {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}, **spec}
        )
        return self.kubectl.wait("tb", name, is_over, seconds)

    def restore_spec(self, backup: str, **spec: Any) -> dict[str, Any]:
        """The spec of a Replace by default; keyword arguments replace fields."""
        target = {"tenantRef": {"name": "acme"}}
        return {"source": {"backupRef": {"name": backup}}, "target": target, "strategy": "Replace"} | spec

    def restore(self, name: str, backup: str, seconds: float = 60, **spec: Any) -> dict[str, Any]:
        """Create a TenantRestore, approved if it is a Replace, and return it once it is over."""
        full = self.restore_spec(backup, **spec)
        if full["strategy"] == "Replace":
            full.setdefault("approval", {"confirm": {"database": self.database, "expires": in_hours(1)}})
        self.apply("TenantRestore", name, full)
        return self.kubectl.wait("tr", name, is_over, seconds)

    def new_database_spec(self, backup: str, database: str) -> dict[str, Any]:
        """The spec of a restore into a new database."""
        target = {"tenantRef": {"name": "acme"}, "database": database}
        return self.restore_spec(backup, strategy="NewDatabase", target=target)

    def manifests(self) -> list[str]:
        """The manifests in this test's prefix of the store."""
        found = self.s3.shell(
            f"find /data/backups/{self.prefix} -path '*/manifests/*' -type f 2>/dev/null; true"
        )
        return sorted(found.split())

    def jobs(self) -> list[str]:
        """The names of the Jobs in this test's namespace."""
        return [item["metadata"]["name"] for item in self.kubectl.list("jobs")]


@pytest.fixture
def empty_room(operator: Kubectl, postgres_17: Postgres, s3_server: S3, namespace: Kubectl) -> Room:
    """A namespace, an empty database and Secrets; neither Tenant nor BackupStore."""
    return new_room(namespace, postgres_17, s3_server)


@pytest.fixture
def room(empty_room: Room) -> Room:
    """A tenant `acme` with two small tables, and a store `prod`."""
    room = empty_room
    room.server.sql(f'SET ROLE "{room.database}";' + SMALL_SQL, room.database)
    room.create_tenant()
    room.create_store()
    return room


def new_room(kubectl: Kubectl, server: Postgres, s3: S3) -> Room:
    """An empty database on any server, and Secrets."""
    name = f"db_{uuid.uuid4().hex[:8]}"
    room = Room(kubectl, server, s3, name, f"p-{name.replace('_', '-')}")
    server.create_database(name, room.password)
    room.create_secrets()
    return room


def in_hours(hours: float) -> str:
    """A time so many hours ahead, as the API wants it."""
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


def failure(document: dict[str, Any]) -> tuple[str, str]:
    """(reason, message) of an object that failed; fails the test when it did not."""
    found = condition(document, "Failed")
    assert found.get("status") == "True", document.get("status")
    assert condition(document, "Succeeded").get("status") != "True"
    return found["reason"], found["message"]
