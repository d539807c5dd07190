"""What several commands take: where the store is, whom to trust, who may read, and for whom to print."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from tenant_backup.archive.keys import Identity
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stores import connect
from tenant_backup.stores.base import Store

from . import credentials, location
from .location import Location
from .private import private_folder

_F = TypeVar("_F", bound=Callable[..., Any])
_TRUST = re.compile(r"(?:ed25519:)?([0-9a-f]{64})", re.IGNORECASE)
_NO_TRUST = (
    "say with --trust ed25519:… whose signature to believe: the key is on the recovery sheet and in the"
    " Tenant's status.signingKey. Whoever may write to the store could have put a forged backup there, so it"
    " is never taken from the store by itself. Is the sheet lost? --trust-store takes the key from the store"
    " with your identity: damage is then found, a forgery is not."
)


class _StoreUrl(click.ParamType[Location]):
    name = "store url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Location:
        """Read it, or end with a usage error."""
        try:
            return value if isinstance(value, Location) else location.parse(value, os.environ)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _TrustKey(click.ParamType[str]):
    name = "ed25519:hex"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the key as 64 hex digits, or end with a usage error."""
        found = _TRUST.fullmatch(value)
        if found is None:
            self.fail(f'"{value}" is not ed25519: and 64 hex digits, as on the recovery sheet', param, ctx)
        return found[1].lower()


STORE_URL = _StoreUrl()
TRUST_KEY = _TrustKey()
FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True)
class Access:
    """Where a command looks, whose signature it believes, and with whose key it reads."""

    where: Location
    credentials_file: Path | None
    trust: str | None = None  # public key, hex
    trust_store: bool = False
    identity_file: Path | None = None


def access(*, trust: bool = True, trust_store: bool = False, identity: bool = True) -> Callable[[_F], _F]:
    """Take STORE-URL and what goes with it, as one `access`."""
    wished = [_STORE_URL, _CREDENTIALS]
    wished += [_TRUST_OPTION] if trust else []
    wished += [_TRUST_STORE] if trust_store else []
    wished += [_IDENTITY] if identity else []
    return _bundled(wished)


def access_by_option() -> Callable[[_F], _F]:
    """Take --store-url instead of the argument, as one `access`."""
    return _bundled([_STORE_OPTION, _CREDENTIALS])


def _bundled(wished: list[Callable[[Any], Any]]) -> Callable[[_F], _F]:
    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        def call(where: Location, credentials_file: Path | None, **rest: Any) -> Any:
            names = [name for name in ("trust", "trust_store", "identity_file") if name in rest]
            given = {name: rest.pop(name) for name in names}
            return function(Access(where, credentials_file, **given), **rest)

        for option in reversed(wished):
            call = option(call)
        return cast(_F, call)

    return decorate


def as_json(function: _F) -> _F:
    """Take --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")(function)


_STORE_URL = click.argument("where", metavar="STORE-URL", type=STORE_URL)
_STORE_OPTION = click.option(
    "--store-url", "where", type=STORE_URL, required=True, help="STORE-URL; ends with the tenant's slug."
)
_CREDENTIALS = click.option(
    "--credentials",
    "credentials_file",
    type=FILE,
    help="File with the S3 access key, as AWS tools keep it; else AWS_ACCESS_KEY_ID and"
    " AWS_SECRET_ACCESS_KEY.",
)
_TRUST_OPTION = click.option(
    "--trust", type=TRUST_KEY, help="The tenant's public signing key, from the recovery sheet."
)
_TRUST_STORE = click.option(
    "--trust-store",
    is_flag=True,
    help="Believe the signing key in the store (needs --identity): damage is found, a forgery is not.",
)
_IDENTITY = click.option(
    "--identity",
    "identity_file",
    type=FILE,
    help="age key file (AGE-SECRET-KEY-1…) of one of the tenant's recipients.",
)


@dataclass(frozen=True)
class Opened:
    """A tenant's store, and the private folder of this run."""

    where: Location
    store: Store
    folder: Path

    @property
    def spool(self) -> Path:
        """Where packs are while they are read."""
        return self.folder / "spool"


@contextmanager
def opened(access: Access) -> Iterator[Opened]:
    """Reach a tenant's store. Raises Failure."""
    if not access.where.slug:
        raise click.UsageError(f"{access.where.url} names no tenant: add the slug as its last part")
    with private_folder() as folder:
        store = reach(access, folder)
        yield Opened(access.where, store, folder)


def reach(access: Access, folder: Path) -> Store:
    """Return the store of a tenant; its secrets go below `folder`. Raises Failure."""
    where = access.where
    if where.volume is None:
        credentials.provide(folder, access.credentials_file, os.environ)
        return connect(where.store, where.slug, secrets=folder / "secrets")
    if not where.volume.is_dir():
        raise Failure(Reason.STORE_NOT_FOUND, f"there is no folder {where.volume}; correct {where.url}")
    return connect(where.store, where.slug, volume=where.volume)


def read_identity(file: Path) -> tuple[Identity, str]:
    """Return the identity and its text. Raises Failure: KEY_MISSING, WRONG_KEY."""
    try:
        text = file.read_text(errors="replace")
    except OSError as error:
        raise Failure(Reason.KEY_MISSING, f"--identity: {file} cannot be read ({error.strerror})") from None
    try:
        return Identity.parse(text), text
    except Failure:
        raise Failure(
            Reason.WRONG_KEY,
            f"{file} holds no age identity; it needs the line AGE-SECRET-KEY-1… that age-keygen made",
        ) from None


def require_trust(access: Access) -> None:
    """End with a usage error when nobody's signature is to be believed."""
    if access.trust is None and not access.trust_store:
        raise click.UsageError(_NO_TRUST)
    if access.trust is None and access.identity_file is None:
        raise click.UsageError(
            "--trust-store needs --identity: the key in the store is encrypted for its owner"
        )
