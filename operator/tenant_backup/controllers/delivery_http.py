"""Webhooks and heartbeats: CloudEvents 1.0 as structured JSON, signed as Standard Webhooks 1.0 say.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tenant_backup.decisions.instants import rfc3339
from tenant_backup.decisions.news import News

from .delivery_networks import Networks
from .delivery_problems import misconfigured, refused, unreachable

REQUEST = aiohttp.ClientTimeout(total=10)  # seconds, for each request from its connection to its answer
BATCH = 30.0  # seconds after which what was delivered is recorded first
_CONTENT = "application/cloudevents+json; charset=UTF-8"
_TYPE = "dev.tenantbackup."
_SHORTEST_KEY, _LONGEST_KEY = 24, 64  # bytes, as Standard Webhooks want them
_AGENT = "tenant-backup-operator"


@dataclass(frozen=True)
class Place:
    """Where requests go. The URL is a secret: whoever has it can write there."""

    url: str = field(repr=False)
    tls: ssl.SSLContext | None
    networks: Networks


def place(secret: str, url: str, ca: str, networks: Networks) -> Place:
    """Return where a Secret's URL leads. Raises Undelivered."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise misconfigured(f"key url of Secret {secret} is no http:// or https:// URL; correct it")
    return Place(url, context(secret, ca) if parts.scheme == "https" else None, networks)


def context(secret: str, ca: str) -> ssl.SSLContext:
    """Return TLS that verifies names and certificates, by the system's authorities or by `ca`."""
    try:
        return ssl.create_default_context(cadata=ca or None)
    except (ssl.SSLError, ValueError):
        raise misconfigured(f"key ca.crt of Secret {secret} is no certificate in PEM; correct it") from None


def signing_key(secret: str, text: str) -> bytes:
    """Return the key that `text` serializes. Raises Undelivered."""
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith("whsec_") or not _SHORTEST_KEY <= len(key) <= _LONGEST_KEY:
        raise misconfigured(
            f"key secret of Secret {secret} is not whsec_ and the base64 of {_SHORTEST_KEY} to {_LONGEST_KEY}"
            ' random bytes; make one with `echo "whsec_$(openssl rand -base64 32)"`'
        )
    return key


def cloud_event(news: News, source: str) -> dict[str, Any]:
    """Return the notification as a CloudEvent."""
    about = {"kind": news.kind, "namespace": news.namespace, "name": news.name, "uid": news.uid}
    return {
        "specversion": "1.0",
        "id": news.id,
        "source": source,
        "type": f"{_TYPE}{news.event}",
        "subject": f"{news.kind}/{news.namespace}/{news.name}",
        "time": rfc3339(news.time),
        "datacontenttype": "application/json",
        "data": {
            "event": news.event,
            **about,
            **({"tenant": news.tenant} if news.tenant else {}),
            **news.data,
        },
    }


def signed(key: bytes, message: str, body: bytes, moment: int) -> dict[str, str]:
    """Return the headers that prove who sent `body`; `moment` is in seconds since 1970."""
    content = b".".join((message.encode(), str(moment).encode(), body))
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": message,
        "webhook-timestamp": str(moment),
        "webhook-signature": f"v1,{signature}",
    }


async def post(to: Place, key: bytes, news: Iterable[News], source: str, delivered: list[str]) -> None:
    """Post each of the news, in order, and add its id to `delivered`. Raises Undelivered."""
    until = asyncio.get_running_loop().time() + BATCH
    async with _session(to) as session:
        for one in news:
            body = json.dumps(cloud_event(one, source), ensure_ascii=False, separators=(",", ":")).encode()
            headers = {"Content-Type": _CONTENT, **signed(key, one.id, body, int(time.time()))}
            await _ask(session, "POST", to.url, headers=headers, data=body)
            delivered.append(one.id)
            if asyncio.get_running_loop().time() > until:
                return


async def ping(to: Place, news: Iterable[News], delivered: list[str]) -> None:
    """Ask once for all of the news, if there are any. Raises Undelivered."""
    ids = [one.id for one in news]
    if ids:
        async with _session(to) as session:
            await _ask(session, "GET", to.url)
        delivered += ids


@asynccontextmanager
async def _session(to: Place) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=to.tls or True, socket_factory=to.networks.socket_for, limit=1)
    cookies = aiohttp.DummyCookieJar()
    agent = {"User-Agent": _AGENT}
    async with aiohttp.ClientSession(
        connector=connector, timeout=REQUEST, cookie_jar=cookies, headers=agent
    ) as session:
        yield session


async def _ask(session: aiohttp.ClientSession, method: str, url: str, **request: Any) -> None:
    # A redirect could lead anywhere, with a body that was signed for this place.
    try:
        async with session.request(method, url, allow_redirects=False, **request) as answer:
            status = answer.status
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise unreachable(error) from None
    if 300 <= status < 400:
        raise refused(f"answered {status}: redirects are not followed; put the final URL into the Secret")
    if not 200 <= status < 300:
        raise refused(f"answered {status}")
