"""STORE-URL: where a tenant's backups are, as people write it on a command line.

`s3://bucket/prefix/slug?endpoint=…&region=…` or `file:///path/prefix/slug`. The last part is the tenant's
slug; without it the URL names all tenants of the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from tenant_backup.contract import job as jobs

_OPTIONS = {"endpoint", "region"}


@dataclass(frozen=True)
class Location:
    """One tenant's prefix: `slug` is the last part of the path, everything before it is in `store`."""

    url: str  # as it was given
    store: jobs.Store
    slug: str  # empty: the root of a bucket, which is no tenant
    volume: Path | None = None  # of a volume store


def parse(url: str, environment: Mapping[str, str]) -> Location:
    """Read a STORE-URL; what it does not say comes from AWS_ENDPOINT_URL and AWS_REGION.

    Raises ValueError, whose text says what is wrong with it.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        return _s3(url, environment)
    if parts.scheme == "file":
        return _file(url)
    raise ValueError(f'"{url}" is no store: it begins with s3:// or file:///')


def _s3(url: str, environment: Mapping[str, str]) -> Location:
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown or not parts.netloc:
        what = f'it has no option "{unknown[0]}"' if unknown else "it names no bucket"
        raise ValueError(f'"{url}": {what}; write s3://bucket/prefix/slug?endpoint=https://…&region=…')
    *prefix, slug = _path(parts.path) or [""]
    store = jobs.Store(
        "s3",
        bucket=parts.netloc,
        prefix="/".join(prefix),
        endpoint=options.get("endpoint", environment.get("AWS_ENDPOINT_URL", "")),
        region=options.get("region", environment.get("AWS_REGION", "")),
    )
    return Location(url, store, slug)


def _file(url: str) -> Location:
    parts = urlsplit(url)
    folders = _path(parts.path)
    if parts.netloc or parts.query or not folders:
        raise ValueError(f'"{url}" is no folder: write three slashes, as in file:///mnt/backups/slug')
    *above, slug = folders
    return Location(url, jobs.Store("volume"), slug, Path("/", *above))


def _path(path: str) -> list[str]:
    parts = [unquote(part) for part in path.split("/") if part]
    if ".." in parts or "." in parts:
        raise ValueError(f'"{path}" has "." or ".." in it; write the path out')
    return parts
