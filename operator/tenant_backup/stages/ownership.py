"""Whose prefix it is: markers that are only ever added, and the last one counts.

`TENANT` names the first owner. A cluster that takes the prefix over adds `TENANT-2`, the next one `TENANT-3`.
Each is created once and never changed, so of two clusters that take over at the same time one gets it, and
dying at any moment leaves the prefix with the old owner or with the new one.
"""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import count
from typing import Any

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stores.base import AlreadyExistsError, NotFoundError, Store, digest_of, read

MARKER = "TENANT"
_FORMAT = 1
_LIMIT = 1 << 16  # bytes
_UNREADABLE = "unreadable"


def claim(store: Store, tenant: jobs.Tenant, adopt: str = "") -> None:
    """Make sure that the store's prefix is this tenant's. Raises Failure StoreForeign if it is not.

    `adopt` names the cluster whose prefix of the same tenant may be taken over, once; with another word after
    the cluster's id it is another time. Two clusters that both may never take it from each other in turns.
    """
    own = _marker(tenant)
    chain = _chain(store)
    if not chain:
        chain = _add(store, 1, own)
    elif _may_take_over(chain, own, adopt):
        chain = _add(store, len(chain) + 1, {**own, "adopted": adopt})
    if not _is_same(_last(chain), own):
        raise _foreign(store, _last(chain))


def owner(store: Store) -> object:
    """Return the marker that counts; None when there is none, a text when it cannot be read."""
    return _last(_chain(store))


def _last(chain: list[Any]) -> Any:
    return chain[-1] if chain else None


def _marker(tenant: jobs.Tenant) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "clusterId": tenant.cluster_id,
        "namespace": tenant.namespace,
        "name": tenant.name,
        "slug": tenant.slug,
    }


def _name(number: int) -> str:
    return MARKER if number == 1 else f"{MARKER}-{number}"


def _chain(store: Store) -> list[Any]:
    """Return all markers; each was added after the one before it, so the first that is absent ends them."""
    chain: list[Any] = []
    for number in count(1):
        try:
            chain.append(json.loads(read(store, _name(number), _LIMIT)))
        except NotFoundError:
            break
        except ValueError:
            chain.append(_UNREADABLE)
    return chain


def _add(store: Store, number: int, marker: dict[str, Any]) -> list[Any]:
    text = json.dumps(marker, sort_keys=True).encode() + b"\n"
    # Taken meanwhile: somebody else was faster, or this very PUT arrived unanswered. Who it is, is read.
    with suppress(AlreadyExistsError):
        store.put(_name(number), text, digest_of(text))
    return _chain(store)


def _is_same(found: object, own: dict[str, Any]) -> bool:
    return isinstance(found, dict) and all(found.get(key) == value for key, value in own.items())


def _may_take_over(chain: list[Any], own: dict[str, Any], adopt: str) -> bool:
    last = _last(chain)
    if not adopt or not isinstance(last, dict) or _is_same(last, own):
        return False
    named = last.get("clusterId") == adopt.partition(" ")[0]
    # Somebody took it back since: a word that stays in Git must not fetch it again and again.
    used = any(each.get("adopted") == adopt for each in chain if _is_same(each, own))
    return named and not used and _is_same(last, {**own, "clusterId": last["clusterId"]})


def _foreign(store: Store, found: object) -> Failure:
    place = f"{store.location}/{MARKER}"
    if not isinstance(found, dict):
        message = (
            f"{place} is not an ownership marker of ours; give the Tenant a slug or the BackupStore a prefix"
        )
        return Failure(Reason.STORE_FOREIGN, message + " that nobody uses")
    cluster = str(found.get("clusterId"))[:100]
    whose = f'Tenant "{found.get("name")}" in namespace "{found.get("namespace")}" of cluster {cluster}'
    return Failure(
        Reason.STORE_FOREIGN,
        f"{store.location} belongs to {whose[:300]}; give this Tenant another slug or this BackupStore"
        " another prefix. If it is the same Tenant and that cluster writes no more, annotate the BackupStore:"
        f" tenantbackup.dev/adopt={cluster}",
    )
