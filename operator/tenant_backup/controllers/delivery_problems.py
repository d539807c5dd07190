"""How a delivery ends badly, in words without secrets: neither a URL, nor what a receiver answered.

An answer's body is never told. Whoever may create notifiers could otherwise read, in a status, what servers
answer that only the operator can reach.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import aiosmtplib

from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.observed import Problem

from .delivery_networks import RefusedAddressError

_CLOSED, _LATE = "the connection was closed without an answer", "no answer in time"


class Undelivered(Exception):
    """The receiver did not take it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def misconfigured(message: str) -> Undelivered:
    """Return the exception for what a person must correct."""
    return Undelivered(Problem(Reason.INVALID_SPEC, message, needs_person=True))


def refused(message: str) -> Undelivered:
    """Return the exception for what a later try may heal."""
    return Undelivered(Problem(Reason.DELIVERY_FAILED, message))


def unreachable(error: BaseException) -> Undelivered:
    """Return the exception for a connection or conversation that broke."""
    if isinstance(error, TimeoutError):
        return refused(_LATE)  # what it came from is how the conversation was cut off
    for cause in _causes(error):
        said = _said(cause)
        if said:
            return refused(said)
    return refused(f"the conversation broke ({type(error).__name__})")


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception and what it came from, the root first: that says most."""
    found = [error]
    while (cause := found[0].__cause__ or found[0].__context__ or _wrapped(found[0])) and cause not in found:
        found.insert(0, cause)
    return found


def _wrapped(error: BaseException) -> BaseException | None:
    return getattr(error, "os_error", None) or getattr(error, "certificate_error", None)


def _said(error: BaseException) -> str:
    said = next((said for kind, said in _WORDS if isinstance(error, kind)), None)
    return said(error) if said else ""


_WORDS: tuple[tuple[type[BaseException], Callable[[Any], str]], ...] = (
    (
        RefusedAddressError,
        lambda _: (
            "its address is in a network where no receiver may be (chart value notifiers.refusedNetworks)"
        ),
    ),
    (
        ssl.SSLCertVerificationError,
        lambda error: (  # what follows the comma has the host's name
            f"its certificate is not trusted: {error.verify_message.partition(',')[0]};"
            " see ca.crt in the Secret"
        ),
    ),
    (ssl.SSLError, lambda error: f"TLS failed: {error.reason or 'no common ground'}"),
    (aiohttp.InvalidURL, lambda _: "its URL cannot be used; correct it in the Secret"),
    (aiosmtplib.SMTPResponseException, lambda error: f"the server answered {error.code}"),
    (TimeoutError, lambda _: _LATE),
    (ConnectionRefusedError, lambda _: "the connection was refused"),
    (socket.gaierror, lambda _: "the name of its host cannot be resolved"),
    (aiohttp.ServerDisconnectedError, lambda _: _CLOSED),
    (ConnectionError, lambda _: _CLOSED),
    (OSError, lambda error: f"cannot connect: {error.strerror}" if error.strerror else ""),
)
