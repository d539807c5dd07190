"""A tenant on MySQL, from `kubectl apply` to a database that was replaced and is as before, by the server's own checksums."""

from __future__ import annotations

import pytest

from hack.lab.kubectl import Kubectl, condition
from hack.lab.servers import S3, MySQL, mysql
from tests.engines.mysql import with_numbers

from .conftest import in_hours
from .test_mariadb import SHOP, Shop

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def mysql_server(servers: Kubectl) -> MySQL:
    """A MySQL from Debian sid."""
    return mysql(servers, "mysql", "localhost/test-mysql:9")


def test_a_mysql_database_is_replaced_and_undo_switches_back(
    operator: Kubectl, mysql_server: MySQL, namespace: Kubectl, s3_server: S3
) -> None:
    """Rows, definitions, views and triggers; the application's account works with either, and is not locked out."""
    shop = Shop(namespace, mysql_server, with_numbers(SHOP))
    shop.create(s3_server, "ALL")
    backed_up = shop.server.fingerprint(shop.database)
    status = shop.back_up("b1")["status"]
    assert (status["state"], status["health"], status["consistency"]) == ("Succeeded", "Healthy", "Snapshot")
    assert (status["contents"]["tables"], status["contents"]["rows"]) == (2, 6000)
    shop.server.as_tenant(shop.database, "correct horse", "DELETE FROM orders; DROP VIEW big")
    before = shop.server.fingerprint(shop.database)
    approval = {"confirm": {"database": shop.database, "expires": in_hours(1)}}
    target = {"tenantRef": {"name": "shop"}}
    status = shop.restore("r1", "b1", target=target, strategy="Replace", approval=approval)["status"]
    assert status["state"] == "Succeeded", status
    assert shop.server.fingerprint(shop.database) == backed_up
    shop.kubectl("patch", "tr", "r1", "--type=merge", "-p", '{"spec":{"undo":true}}')
    shop.kubectl.wait("tr", "r1", lambda found: condition(found, "Undone").get("status") == "True", 60)
    assert shop.server.fingerprint(shop.database) == before
    shop.server.as_tenant(shop.database, "correct horse", "INSERT INTO orders (customer) VALUES (1)")
