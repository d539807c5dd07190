"""Mail: what happened since the last one, in plain text, over TLS only."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

import aiosmtplib

from tenant_backup.api.backup_notifier import Email
from tenant_backup.decisions.instants import duration, rfc3339, size
from tenant_backup.decisions.names import digest
from tenant_backup.decisions.news import News

from .delivery_http import context
from .delivery_networks import Networks
from .delivery_problems import misconfigured, refused, unreachable

TIMEOUT = 30.0  # seconds, for the whole conversation
IMPLICIT_TLS, STARTTLS = 465, 587  # ports
_DOMAIN = "tenantbackup.dev"


@dataclass(frozen=True)
class Server:
    """An SMTP server, and who we are there."""

    host: str
    port: int
    implicit: bool  # TLS from the first byte, not by STARTTLS
    username: str
    password: str = field(repr=False)
    tls: ssl.SSLContext = field(repr=False)


def server(secret: str, data: Mapping[str, str]) -> Server:
    """Return what a Secret says. Raises Undelivered."""
    missing = [key for key in ("host", "username", "password") if not data.get(key)]
    if missing:
        raise misconfigured(f"Secret {secret} has no {', '.join(missing)}; add it")
    port, tls = data.get("port", str(STARTTLS)), data.get("tls", "")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise misconfigured(f"key port of Secret {secret} is no port; correct it")
    if tls not in ("", "StartTLS", "Implicit"):
        raise misconfigured(f"key tls of Secret {secret} is neither StartTLS nor Implicit; correct it")
    implicit = tls == "Implicit" or (not tls and int(port) == IMPLICIT_TLS)
    trusted = context(secret, data.get("ca.crt", ""))
    return Server(data["host"], int(port), implicit, data["username"], data["password"], trusted)


async def send(
    to: Server, networks: Networks, email: Email, news: tuple[News, ...], delivered: list[str]
) -> None:
    """Send one mail with all of the news, if there are any, and add their ids to `delivered`.

    Raises Undelivered; also when somebody of several was refused, and then the others have it.
    """
    if not news:
        return
    message = mail(email, news)
    try:
        async with asyncio.timeout(TIMEOUT):
            lost = await _converse(to, networks, message, email)
    except (aiosmtplib.SMTPException, OSError, ValueError) as error:
        raise _refused(error) from None
    delivered += [one.id for one in news]
    if lost:
        raise refused(f"the server took the mail, but not for {', '.join(sorted(lost))}")


async def _converse(to: Server, networks: Networks, message: EmailMessage, email: Email) -> Mapping[str, Any]:
    connection = await networks.connect(to.host, to.port)
    client = aiosmtplib.SMTP(
        hostname=to.host,
        sock=connection,
        username=to.username,
        password=to.password,
        use_tls=to.implicit,
        start_tls=not to.implicit,  # required: without it no password and no mail is sent
        tls_context=to.tls,
        local_hostname="tenant-backup-operator",
        timeout=TIMEOUT,
    )
    try:
        await client.connect()
        lost, _ = await client.send_message(message, sender=email.sender, recipients=list(email.to))
        await client.quit()
    finally:
        client.close()
        connection.close()
    return lost


def _refused(error: BaseException) -> Exception:
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        return refused(f"the server refuses username and password ({error.code})")
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        codes = sorted({str(one.code) for one in error.recipients})
        return refused(f"the server refuses every recipient ({', '.join(codes)})")
    if isinstance(error, aiosmtplib.SMTPSenderRefused):
        return refused(f"the server refuses the sender ({error.code})")
    if type(error) is aiosmtplib.SMTPException:
        return refused("the server does not offer STARTTLS, or no login; nothing is sent without")
    return unreachable(error)


def mail(email: Email, news: tuple[News, ...]) -> EmailMessage:
    """Return the mail. Its Message-ID is a function of the news: a mail sent again is the same mail."""
    message = EmailMessage()
    message["Subject"] = subject(news)
    message["From"] = email.sender
    message["To"] = ", ".join(email.to)
    message["Date"] = format_datetime(max(one.time for one in news))
    message["Message-ID"] = f"<{digest(*(one.id for one in news))}.{news[0].id}@{_DOMAIN}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence is told to us
    message.set_content("\n\n".join("\n".join(_lines(one)) for one in news) + "\n")
    return message


def subject(news: tuple[News, ...]) -> str:
    """Return the subject: of one what it is, of many how many of each."""
    first = news[0]
    if len(news) == 1:
        return f"[backup] {first.event}: {first.tenant or first.name} ({first.namespace}/{first.name})"
    counts = Counter(one.event for one in news).most_common()
    return f"[backup] {', '.join(f'{count} {event}' for event, count in counts)} in {first.namespace}"


def _lines(one: News) -> Iterator[str]:
    about = f" of Tenant {one.tenant}" if one.tenant and one.kind != "Tenant" else ""
    yield f"{rfc3339(one.time)}  {one.event}: {one.kind} {one.namespace}/{one.name}{about}"
    reason = one.data.get("reason", "")
    if one.message:
        yield f"  {reason}: {one.message}" if reason else f"  {one.message}"
    facts = {
        "store": one.data.get("store"),
        "backup": one.data.get("backup"),
        "schedule": one.data.get("schedule"),
        "took": duration(one.data["seconds"]) if "seconds" in one.data else None,
        "size": size(one.data["bytes"]["stored"]) if "stored" in one.data.get("bytes", {}) else None,
        "requested by": one.data.get("requestedBy"),
    }
    known = [f"{name} {value}" for name, value in facts.items() if value]
    if known:
        yield f"  {', '.join(known)}"
