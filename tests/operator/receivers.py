"""Real receivers on loopback: an HTTP server that checks signatures as the documents show, and an SMTP server.

They misbehave as they are told: answer an error, slowly or never, close the connection, redirect.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

KEY = bytes(range(32))
SIGNING = "whsec_" + base64.b64encode(KEY).decode()
Manner = int | Literal["slow", "silent", "close", "redirect"]
PATH = "/hook/secret-path"
USERNAME, PASSWORD = "backup", "hunter2hunter2"


@dataclass
class Web:
    """Where requests arrive. `manner` gives the answer to each of them by number, from 0."""

    url: str = ""
    manner: Callable[[int], Manner] = lambda _: 204
    asked: int = 0
    accepted: list[dict[str, Any]] = field(default_factory=list)
    forged: int = 0
    wake: threading.Event = field(default_factory=threading.Event)  # ends every silence

    @property
    def ids(self) -> list[str]:
        """The ids of the events that were accepted."""
        return [event["id"] for event in self.accepted]


def is_signed(headers: Any, body: bytes) -> bool:
    """Whether `body` was signed with KEY a moment ago."""
    moment = headers["webhook-timestamp"]
    content = b".".join((headers["webhook-id"].encode(), moment.encode(), body))
    expected = "v1," + base64.b64encode(hmac.new(KEY, content, hashlib.sha256).digest()).decode()
    return abs(time.time() - int(moment)) < 300 and hmac.compare_digest(
        headers["webhook-signature"], expected
    )


class _Handler(BaseHTTPRequestHandler):
    """One connection to a `_Server`."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """A heartbeat."""
        self._answer({})

    def do_POST(self) -> None:
        """A webhook."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == PATH and is_signed(self.headers, body):
            self._answer(json.loads(body))
        else:
            self.server.found.forged += 1
            self._respond(401)

    def _answer(self, event: dict[str, Any]) -> None:
        found = self.server.found
        with self.server.lock:
            manner = found.manner(found.asked)
            found.asked += 1
        if manner == "close":
            self.close_connection = True
            return
        if manner in ("slow", "silent"):
            found.wake.wait(0.3 if manner == "slow" else 60)
        status = manner if isinstance(manner, int) else {"redirect": 302}.get(manner, 200)
        if status < 300 and manner != "silent":
            found.accepted.append(event)
        self._respond(status)

    def _respond(self, status: int) -> None:
        try:
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
        except OSError:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, found: Web, tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.found, self.lock = found, threading.Lock()
        found.url = f"{'https' if tls else 'http'}://localhost:{self.server_port}{PATH}"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)


@contextmanager
def web(tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    """Run an HTTP server."""
    found = Web()
    with _Server(found, tls) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield found
        finally:
            found.wake.set()
            server.shutdown()


@dataclass
class Mailbox:
    """What an SMTP server has taken. `refuses` are recipients it does not know."""

    port: int = 0
    implicit: bool = False
    mails: list[Message] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    refuses: tuple[str, ...] = ()
    logins: list[bool] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Take a recipient, or not."""
        if address in self.refuses:
            return "550 unknown"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take a mail, over TLS only."""
        assert self.implicit or session.ssl is not None
        assert isinstance(envelope.content, bytes)
        self.mails.append(message_from_bytes(envelope.content, policy=default))
        self.recipients.append(list(envelope.rcpt_tos))
        return "250 OK"

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any
    ) -> AuthResult:
        """Look at username and password."""
        good = isinstance(data, LoginPassword) and (data.login, data.password) == (
            USERNAME.encode(),
            PASSWORD.encode(),
        )
        self.logins.append(good)
        return AuthResult(success=good, handled=good)


@contextmanager
def smtp(
    tls: ssl.SSLContext | None, how: Literal["StartTLS", "Implicit", "None"] = "StartTLS"
) -> Iterator[Mailbox]:
    """Run an SMTP server that wants a login; with `how` None it offers no TLS."""
    box = Mailbox(_free_port(), how == "Implicit")
    options: dict[str, Any] = {"authenticator": box.authenticate, "auth_required": how != "None"}
    if how == "StartTLS":
        options |= {"tls_context": tls, "require_starttls": True}
    if how == "Implicit":
        options |= {"auth_require_tls": False}  # aiosmtpd counts only its own STARTTLS as TLS
    context = tls if how == "Implicit" else None
    server = Controller(box, hostname="localhost", port=box.port, ssl_context=context, **options)
    server.start()
    try:
        yield box
    finally:
        server.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@dataclass(frozen=True)
class Authority:
    """A certificate authority of the test, and a server's certificate for localhost that it signed."""

    folder: Path

    @property
    def pem(self) -> str:
        """Its own certificate."""
        return (self.folder / "ca.crt").read_text()

    def server(self, name: str = "localhost") -> ssl.SSLContext:
        """Return TLS for a server of that name."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._sign(name)
        context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context

    @classmethod
    def make(cls, folder: Path) -> Authority:
        """Make one in `folder`."""
        made = cls(folder)
        made._openssl(
            "req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", "-days", "2"
        )
        return made

    def _sign(self, name: str) -> None:
        self._openssl("req", *_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (self.folder / "names").write_text(f"subjectAltName=DNS:{name}\n")
        signer = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *signer)

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
