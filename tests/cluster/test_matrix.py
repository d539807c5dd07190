"""Engine and version, contents, mode and strategy: what comes back is what was backed up, by independent means.

Every server has a tenant with an HR product's rows and some files. It is backed up in every way, as it is and then
changed, and each backup is restored. What the servers say of rows and definitions, and hashes of the files, are
compared in one test for each cell.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyrage
import pytest

from hack.lab import servers as lab
from hack.lab.kubectl import Kubectl, is_over
from hack.lab.servers import S3, MariaDB, Postgres, secret
from hack.lab.volumes import TREE, USER, claim, on_volumes

from .conftest import API_VERSION, in_hours

pytestmark = pytest.mark.cluster

Server = Postgres | MariaDB
# Name of the server and of its tenant: engine, image, and what starts it.
SERVERS: dict[str, tuple[str, str, Callable[[Kubectl, str, str], Server]]] = {
    "pg15": ("PostgreSQL", "test-postgres:15", lab.postgres),
    "pg17": ("PostgreSQL", "test-postgres:17", lab.postgres),
    "pg18": ("PostgreSQL", "test-postgres:18", lab.postgres),
    "maria": ("MariaDB", "test-mariadb:10.11", lab.mariadb),
    "maria118": ("MariaDB", "test-mariadb:11.8", lab.mariadb),
    "mysql": ("MySQL", "test-mysql:9", lab.mysql),
}
Key = TypeVar("Key")
PASSWORD = "correct horse"
GROW = """mkdir -p letters/2024; echo hello > letters/2024/a.txt; : > empty; ln -s letters link; ln letters/2024/a.txt same
head -c 2000000 /dev/urandom > photo.jpg; chmod 640 photo.jpg; truncate -s 5M disk.img; echo x > grüße"""
CHANGE = "echo more >> letters/2024/a.txt; rm empty; echo new > new"
CHANGED_ROWS = "UPDATE employee SET salary = 1 WHERE id <= 100; DELETE FROM activity_log WHERE actor = 7"
DAMAGE = "DROP TABLE setting; UPDATE employee SET salary = 0; DELETE FROM activity_log"


@dataclass(frozen=True)
class Cell:
    """One kind of backup of one tenant, and how it is restored."""

    tenant: str
    mode: str
    contents: str

    def __str__(self) -> str:
        """The name of its objects."""
        return f"{self.tenant}-{self.mode}-{self.contents}".lower()

    @property
    def replaces(self) -> bool:
        """Whether it takes the place of what is live, else it goes to a new database and an empty claim."""
        return (self.mode, self.contents) in {("Full", "All"), ("Incremental", "Database")}

    @property
    def brings_rows(self) -> bool:
        """Whether it brings a database back."""
        return self.contents != "Files"

    @property
    def claim(self) -> str:
        """Where its files go; empty: it has none."""
        where = f"{self.tenant}-live" if self.replaces else str(self)
        return where if self.contents != "Database" else ""


CELLS = [
    Cell(tenant, mode, contents)
    for tenant in SERVERS
    for mode in ("Full", "Incremental")
    for contents in ("All", "Database", "Files")
]


@dataclass
class Matrix:
    """All tenants in one namespace: what there was, how each backup and restore ended, and what came back."""

    kubectl: Kubectl
    servers: dict[str, Server]
    identity: pyrage.x25519.Identity = field(default_factory=pyrage.x25519.Identity.generate)
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:6])
    backups: dict[str, Any] = field(default_factory=dict)  # status by name
    restores: dict[str, Any] = field(default_factory=dict)  # status by name
    rows_then: dict[tuple[str, str], Any] = field(default_factory=dict)  # by tenant and mode
    files_then: dict[tuple[str, str], str] = field(default_factory=dict)
    rows_back: dict[Cell, Any] = field(default_factory=dict)
    files_back: dict[Cell, str] = field(default_factory=dict)

    def live(self, tenant: str) -> str:
        """The name of a tenant's database."""
        return f"{tenant}_{self.run}"

    def copy(self, cell: Cell) -> str:
        """The name of the new database for a backup."""
        return f"{self.live(cell.tenant)}_{cell.contents}".lower()

    def create(self, s3: S3) -> None:
        """Rows, files, and everything the operator needs to know."""
        with ThreadPoolExecutor(2) as pool:
            names = list(self.servers)
            list(pool.map(lambda name: self.servers[name].create_tenant(self.live(name), PASSWORD), names))
        claims = sorted({*(f"{name}-live" for name in names), *(cell.claim for cell in CELLS)} - {""})
        self.kubectl.apply(*map(claim, claims))
        grown = f"case $volume in *-live) {GROW};; esac; {TREE}"
        self.files_then |= {(name, "Full"): tree for name, tree in self.trees("grow", claims, grown).items()}
        self.kubectl.apply(
            secret("identity", identity=str(self.identity)),
            *s3.store("prod", "backups", f"matrix-{self.run}"),
        )
        for name in names:
            self.kubectl.apply(*self.tenant(name))

    def tenant(self, name: str) -> list[dict[str, Any]]:
        """A Tenant and its Secrets."""
        engine, server = SERVERS[name][0], self.servers[name]
        administrator = "postgres" if engine == "PostgreSQL" else "root"
        database: dict[str, Any] = {"engine": engine, "host": server.host, "name": self.live(name)}
        database |= {"credentialsSecretRef": {"name": f"{name}-db"}}
        database |= {"adminCredentialsSecretRef": {"name": f"{name}-admin"}}
        files: dict[str, Any] = {
            "name": "uploads",
            "persistentVolumeClaim": {"claimName": f"{name}-live"},
        }
        files |= {"securityContext": {"runAsUser": USER, "runAsGroup": USER}}
        keys = {
            "recipients": [str(self.identity.to_public())],
            "identitySecretRef": {"name": "identity"},
        }
        return [
            secret(f"{name}-db", username=self.live(name), password=PASSWORD),
            secret(f"{name}-admin", username=administrator, password=server.password),
            _object("Tenant", name, {"database": database, "files": [files], "encryption": keys}),
        ]

    def back_up(self, mode: str) -> None:
        """Note what the databases hold, and back up in every way; one after the other, as ids have seconds."""
        places = {(name, mode): (server, self.live(name)) for name, server in self.servers.items()}
        self.rows_then |= _contents(places)
        for contents in ("All", "Database", "Files"):
            common = {
                "storeRef": {"name": "prod"},
                "contents": contents,
                "mode": mode,
                "verification": "None",
            }
            self.backups |= self.carried_out(
                "TenantBackup",
                {
                    str(cell): {"tenantRef": {"name": cell.tenant}, **common}
                    for cell in CELLS
                    if (cell.mode, cell.contents) == (mode, contents)
                },
            )

    def change(self) -> None:
        """Change rows and files of every tenant."""
        self.on_everybody(CHANGED_ROWS)
        claims = [f"{name}-live" for name in self.servers]
        trees = self.trees("change", claims, f"{CHANGE}; {TREE}")
        self.files_then |= {(name, "Incremental"): tree for name, tree in trees.items()}

    def restore_beside(self) -> None:
        """Restore what goes to new databases and empty claims; those of one tenant wait for each other."""
        cells = [cell for cell in CELLS if not cell.replaces]
        specs = {}
        for cell in cells:
            target: dict[str, Any] = {"database": self.copy(cell)} if cell.brings_rows else {}
            if cell.claim:
                target["files"] = [{"name": "uploads", "persistentVolumeClaim": {"claimName": cell.claim}}]
            specs[str(cell)] = _restore(cell, "NewDatabase", target)
        self.restores |= self.carried_out("TenantRestore", specs)
        self.look_at(cell for cell in cells if cell.brings_rows)

    def replace(self, mode: str, contents: str) -> None:
        """Put backups of one kind in place of what is live."""
        cells = [cell for cell in CELLS if (cell.mode, cell.contents) == (mode, contents)]
        specs = {}
        for cell in cells:
            volumes = ["uploads"] if cell.claim else []
            confirm = {"database": self.live(cell.tenant), "files": volumes, "expires": in_hours(1)}
            target = {"database": self.live(cell.tenant), "files": [{"name": name} for name in volumes]}
            specs[str(cell)] = _restore(cell, "Replace", target, approval={"confirm": confirm})
        self.restores |= self.carried_out("TenantRestore", specs)
        self.look_at(cells)

    def look_at_files(self) -> None:
        """Note what is on all claims."""
        cells = {cell.claim: cell for cell in CELLS if cell.claim}
        trees = self.trees("look", cells, TREE)
        self.files_back |= {cell: trees[name.removesuffix("-live")] for name, cell in cells.items()}

    def carried_out(self, kind: str, specs: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """Apply objects by their names, all at once; return their status by name when all of them are over."""
        self.kubectl.apply(*(_object(kind, name, spec) for name, spec in specs.items()))
        while left := [one for one in self.kubectl.list(kind) if not is_over(one)]:
            self.kubectl.wait(kind, left[0]["metadata"]["name"], is_over, 180)
        return {one["metadata"]["name"]: one["status"] for one in self.kubectl.list(kind)}

    def look_at(self, cells: Iterable[Cell]) -> None:
        """Note what came back with those restores that succeeded."""
        done = [cell for cell in cells if self.restores[str(cell)]["state"] == "Succeeded"]
        self.rows_back |= _contents(
            {
                cell: (
                    self.servers[cell.tenant],
                    self.live(cell.tenant) if cell.replaces else self.copy(cell),
                )
                for cell in done
            }
        )

    def on_everybody(self, statements: str) -> None:
        """Run statements in every tenant's live database."""
        for name, server in self.servers.items():
            server.sql(statements, self.live(name))

    def trees(self, pod: str, claims: Iterable[str], script: str) -> dict[str, str]:
        """Run a script on claims; return what it wrote of each, by its name without `-live`."""
        written = on_volumes(
            self.kubectl, pod, "localhost/test-postgres:17", list(claims), f"echo =$volume; {script}"
        )
        parts = re.split(r"^=/volumes/(.*)\n", written, flags=re.MULTILINE)[1:]
        return {name.removesuffix("-live"): tree for name, tree in zip(parts[::2], parts[1::2], strict=True)}


@pytest.fixture(scope="module")
def matrix(operator: Kubectl, servers: Kubectl, s3_server: S3) -> Iterator[Matrix]:
    """Everything is backed up and restored together: one by one it would take ten times as long."""
    with ThreadPoolExecutor(3) as pool:
        running = dict(zip(SERVERS, pool.map(lambda name: _start(servers, name), SERVERS), strict=True))
    kubectl = servers.within(f"matrix-{uuid.uuid4().hex[:8]}")
    kubectl.apply(lab.namespace(kubectl.namespace))
    matrix = Matrix(kubectl, running)
    matrix.create(s3_server)
    matrix.back_up("Full")
    matrix.change()
    matrix.back_up("Incremental")
    matrix.restore_beside()
    matrix.on_everybody(DAMAGE)
    matrix.replace("Full", "All")
    matrix.replace("Incremental", "Database")
    matrix.look_at_files()
    yield matrix
    kubectl("delete", "namespace", kubectl.namespace, "--wait=false")


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_what_comes_back_is_what_was_backed_up(matrix: Matrix, cell: Cell) -> None:
    """Rows and definitions as the server says, files by their hashes; only Full stores everything anew."""
    backup = matrix.backups[str(cell)]
    assert backup["state"] == "Succeeded", backup
    found = backup["contents"]
    has = (found.get("rows", 0) > 0, found.get("files", 0) > 0)
    assert has == (cell.brings_rows, cell.contents != "Database")
    assert (backup["bytes"]["added"] > 0.9 * backup["bytes"]["stored"]) == (cell.mode == "Full")
    assert backup["consistency"] == ("Snapshot" if cell.brings_rows else "PerFile")
    restore = matrix.restores[str(cell)]
    assert restore["state"] == "Succeeded", restore
    then = cell.tenant, cell.mode
    if cell.brings_rows:
        assert restore["check"] == {"rowsMatch": True, "constraintsValid": True}
        assert restore["restored"]["rows"] == found["rows"]
        assert matrix.rows_back[cell] == matrix.rows_then[then]
    if cell.claim:
        assert matrix.files_back[cell] == matrix.files_then[then]


def _start(kubectl: Kubectl, name: str) -> Server:
    _, image, start = SERVERS[name]
    return start(kubectl, name, f"localhost/{image}")


def _contents(places: Mapping[Key, tuple[Server, str]]) -> dict[Key, Any]:
    """Return what servers say of a database of theirs: all rows, hashed, and all definitions."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(places, pool.map(lambda place: _content(*place), places.values()), strict=True))


def _content(server: Server, database: str) -> Any:
    if isinstance(server, Postgres):
        return server.fingerprint(database), server.definitions(database)
    return server.fingerprint(database)


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _restore(cell: Cell, strategy: str, target: dict[str, Any], **more: Any) -> dict[str, Any]:
    source = {"backupRef": {"name": str(cell)}}
    return {
        "source": source,
        "target": {"tenantRef": {"name": cell.tenant}, **target},
        "strategy": strategy,
        **more,
    }
