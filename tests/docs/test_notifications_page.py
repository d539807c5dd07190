"""The example of docs/notifications.md checks the signatures that the operator makes."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable

import pytest

from hack.lab.kubectl import ROOT
from tenant_backup.controllers.delivery_http import signed, signing_key

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BODY = b'{"specversion":"1.0"}'
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def is_genuine() -> Callable[[dict[str, str], bytes, str], bool]:
    """The function as the page prints it."""
    (code,) = _PYTHON.findall((ROOT / "docs" / "notifications.md").read_text())
    names: dict[str, Callable[[dict[str, str], bytes, str], bool]] = {}
    exec(code, names)
    return names["is_genuine"]


def headers(age: int = 0) -> dict[str, str]:
    """What a request signed that many seconds ago has."""
    return signed(signing_key("ops", SECRET), "an-id", BODY, int(time.time()) - age)


def test_the_example_believes_what_the_operator_signed(
    is_genuine: Callable[[dict[str, str], bytes, str], bool],
) -> None:
    assert is_genuine(headers(), BODY, SECRET)
    rotated = headers() | {"webhook-signature": "v1,b3RoZXI= " + headers()["webhook-signature"]}
    assert is_genuine(rotated, BODY, SECRET)


def test_the_example_believes_nothing_else(is_genuine: Callable[[dict[str, str], bytes, str], bool]) -> None:
    """Another body, another key, another id, or an old request sent again."""
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()
    assert not is_genuine(headers(), BODY + b" ", SECRET)
    assert not is_genuine(headers(), BODY, other)
    assert not is_genuine(headers() | {"webhook-id": "another"}, BODY, SECRET)
    assert not is_genuine(headers(age=301), BODY, SECRET)


def test_a_signature_is_the_one_of_the_specification() -> None:
    """The vector of the libraries of Standard Webhooks."""
    key = signing_key("ops", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = signed(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', 1614265330)
    assert made["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
