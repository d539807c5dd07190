"""A tenant on MariaDB: what an account is told, and what an undo brings back; test_matrix.py has the rest."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

import pyrage
import pytest

from hack.lab.kubectl import Kubectl, condition, is_over, is_true
from hack.lab.servers import S3, MariaDB, mariadb, secret

from .conftest import API_VERSION, in_hours

pytestmark = pytest.mark.cluster

SHOP = """
CREATE TABLE customer (id int PRIMARY KEY, name varchar(99) NOT NULL, photo blob, since datetime(6));
INSERT INTO customer SELECT seq, concat('grüße ', seq), unhex(md5(seq)), '2024-01-15 14:30:25.123456' FROM seq_1_to_1000;
CREATE TABLE orders (id int PRIMARY KEY AUTO_INCREMENT, customer int, total decimal(9,2), FOREIGN KEY (customer) REFERENCES customer (id));
INSERT INTO orders (customer, total) SELECT 1 + seq % 1000, seq / 7 FROM seq_1_to_5000;
CREATE VIEW big AS SELECT * FROM orders WHERE total > 100;
CREATE TRIGGER `no_debt` BEFORE INSERT ON `orders` FOR EACH ROW SET NEW.total = greatest(NEW.total, 0);
"""


@dataclass
class Shop:
    """A tenant `shop` with its own database, and a store `prod`."""

    kubectl: Kubectl
    server: MariaDB
    script: str = SHOP
    database: str = field(default_factory=lambda: f"shop_{uuid.uuid4().hex[:8]}")
    identity: pyrage.x25519.Identity = field(default_factory=pyrage.x25519.Identity.generate)

    def apply(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        """Apply one of our objects."""
        self.kubectl.apply(
            {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        )

    def create(self, s3: S3, rights: str) -> None:
        """Its database and everything the operator needs to know."""
        self.server.create_database(self.database, "correct horse", rights)
        self.server.as_tenant(self.database, "correct horse", self.script)
        self.kubectl.apply(
            secret("db", username=self.database, password="correct horse"),
            secret("admin", username="root", password=self.server.password),
            secret("identity", identity=str(self.identity)),
            *s3.store("prod", "backups", self.database.replace("_", "-")),
        )
        database = {"engine": self.server.engine, "host": self.server.host, "name": self.database}
        database |= {"credentialsSecretRef": {"name": "db"}, "adminCredentialsSecretRef": {"name": "admin"}}
        keys = {"recipients": [str(self.identity.to_public())], "identitySecretRef": {"name": "identity"}}
        self.apply("Tenant", "shop", {"database": database, "encryption": keys})

    def back_up(self, name: str) -> dict[str, Any]:
        """Create a TenantBackup and return it once it is over."""
        self.apply("TenantBackup", name, {"tenantRef": {"name": "shop"}, "storeRef": {"name": "prod"}})
        return self.kubectl.wait("tb", name, is_over, 60)

    def restore(self, name: str, backup: str, **spec: Any) -> dict[str, Any]:
        """Create a TenantRestore and return it once it is over."""
        self.apply("TenantRestore", name, {"source": {"backupRef": {"name": backup}}, **spec})
        return self.kubectl.wait("tr", name, is_over, 60)


@pytest.fixture(scope="session")
def mariadb_server(servers: Kubectl) -> MariaDB:
    """A shared MariaDB 10.11."""
    return mariadb(servers, "maria", "localhost/test-mariadb:10.11")


@pytest.fixture
def shop(operator: Kubectl, mariadb_server: MariaDB, namespace: Kubectl) -> Shop:
    """A namespace, and a database that does not exist yet."""
    return Shop(namespace, mariadb_server)


def test_a_mariadb_database_is_replaced_and_undo_switches_back(shop: Shop, s3_server: S3) -> None:
    """The application's account works with the backup, then with what was there before, and is not locked out."""
    shop.create(s3_server, "ALL")
    backed_up = shop.server.fingerprint(shop.database)
    shop.back_up("b1")
    shop.server.as_tenant(shop.database, "correct horse", "DELETE FROM orders; DROP VIEW big")
    before = shop.server.fingerprint(shop.database)
    approval = {"confirm": {"database": shop.database, "expires": in_hours(1)}}
    target = {"tenantRef": {"name": "shop"}}
    status = shop.restore("r1", "b1", target=target, strategy="Replace", approval=approval)["status"]
    assert status["state"] == "Succeeded", status
    assert shop.server.fingerprint(shop.database) == backed_up
    assert shop.server.sql("SELECT count(*) FROM orders", status["previousDatabase"]) == "0"
    shop.server.as_tenant(shop.database, "correct horse", "INSERT INTO orders (customer) VALUES (1)")
    shop.kubectl("patch", "tr", "r1", "--type=merge", "-p", '{"spec":{"undo":true}}')
    shop.kubectl.wait("tr", "r1", lambda found: condition(found, "Undone").get("status") == "True", 60)
    assert shop.server.fingerprint(shop.database) == before
    shop.server.as_tenant(shop.database, "correct horse", "INSERT INTO orders (customer) VALUES (1)")


def test_a_mariadb_account_without_rights_is_told_the_grant_it_needs(shop: Shop, s3_server: S3) -> None:
    """The server would leave the view out in silence."""
    shop.create(s3_server, "SELECT, INSERT, CREATE, CREATE VIEW, REFERENCES, TRIGGER")
    found = shop.kubectl.wait(
        "tnt", "shop", lambda one: condition(one, "Stalled").get("status") == "True", 60
    )
    message = condition(found, "Ready")["message"]
    assert "GRANT" in message
    assert "SHOW VIEW" in message
    shop.server.sql(message[message.index("GRANT") :])
    backup = shop.back_up("b1")["status"]
    assert backup["state"] == "Succeeded", (message, backup)
    shop.kubectl.wait("tnt", "shop", is_true("Ready"), 60)
