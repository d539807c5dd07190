"""Nothing that looks like a secret reaches a log."""

from __future__ import annotations

import json
import logging

import pytest

from tenant_backup.telemetry.logs import JsonLines
from tenant_backup.telemetry.redaction import redact

SECRETS = [
    (
        "AGE-SECRET-KEY-1QQPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
        "AGE-SECRET-KEY-1QQPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
    ),
    ("connect to postgresql://app:hunter2@pg/app failed", "hunter2"),
    ('{"password": "hunter2", "user": "app"}', "hunter2"),
    ("password=hunter2 host=pg", "hunter2"),
    ("PGPASSWORD=hunter2", "hunter2"),
    ("secretAccessKey: wJalrXUtnFEMI", "wJalrXUtnFEMI"),
    ("aws_secret_access_key = wJalrXUtnFEMI", "wJalrXUtnFEMI"),
    ("Authorization: Bearer eyJhbGciOiJSUzI1NiIs", "eyJhbGciOiJSUzI1NiIs"),
    ("-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----", "MC4CAQ"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_secrets_are_hidden(text: str, secret: str) -> None:
    """In plain text and in a log line."""
    assert secret not in redact(text)
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%s", (text,), None)
    line = JsonLines().format(record)
    assert secret not in line
    assert json.loads(line)["level"] == "info"


def test_ordinary_sentences_stay() -> None:
    """A user must be able to read them."""
    text = 'database "app" does not exist; password authentication failed for user "app" at pg:5432'
    assert redact(text) == text
