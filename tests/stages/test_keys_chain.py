"""Keys through all real stages: what a cluster without the identity can do, and what it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pyrage
import pytest

from hack.lab.chain import facts
from tenant_backup.archive.frame import Damaged, FrameCipher
from tenant_backup.archive.keys import Identity, IndexKey, derive, recipient_set
from tenant_backup.archive.pack import Binding, PackKind, read_ends
from tenant_backup.archive.rewrap import rewrap
from tenant_backup.contract.job import Store
from tenant_backup.contract.reasons import Reason
from tenant_backup.stores import connect
from tests.stages.test_chain import Site, server, site

__all__ = ["server", "site"]  # fixtures


def back_up(site: Site, **changes: Any) -> dict[str, Any]:
    """Run a backup; return what `upload` said."""
    return facts(site.chain.run(site.backup(**changes)), "upload")


def restore(site: Site, backup: dict[str, Any]) -> int:
    """Restore into a new database; return the rows."""
    copy = f"{site.database}_copy"
    site.server.sql(f"DROP DATABASE IF EXISTS {copy}")
    job = site.restore(backup, strategy="NewDatabase", target_database=copy)
    return int(facts(site.chain.run(job), "load")["restored"]["rows"])


def without_identity(site: Site) -> None:
    """The cluster has none."""
    (site.chain.folder / "secrets" / "identity" / "identity").unlink()


def with_identity(site: Site, identity: pyrage.x25519.Identity) -> None:
    """Somebody brings one, for a restore."""
    site.chain.write_secret("identity", {"identity": f"{identity}\n"})


def objects(site: Site) -> Path:
    """The tenant's folder in the store."""
    return site.chain.folder / "store" / "lab" / site.tenant.slug


def manifest(site: Site, backup: dict[str, Any]) -> dict[str, Any]:
    """A manifest as it stands in the store."""
    return dict(json.loads((objects(site) / "manifests" / backup["backupId"]).read_bytes()))


def packs(site: Site) -> Iterator[tuple[Path, bytes, bytes, list[Any]]]:
    """Every pack: its wrapped key, its bytes and its frames; the cluster can read the footers."""
    index = IndexKey(site.chain.index_key)
    for path in sorted((objects(site) / "packs").glob("*/*")):
        data = path.read_bytes()
        binding = Binding(PackKind.DATA, path.name, site.tenant.slug, index)
        wrapped, frames = read_ends(lambda at, length, data=data: data[at : at + length], len(data), binding)
        yield path, wrapped, data, frames


def test_a_cluster_that_only_writes_holds_nothing_that_opens_a_row(site: Site) -> None:
    """Backups go on, incrementally, without an identity; every key there is, in every use, opens no frame."""
    without_identity(site)
    first = back_up(site)
    second = back_up(site)
    assert second["bytes"]["added"] < first["bytes"]["added"] / 2
    index, seed = site.chain.index_key, site.chain.signing_seed
    recipient = str(site.identity.to_public())
    held = [index, seed, bytes.fromhex(site.chain.signing_key), IndexKey(index).unencrypted().secret]
    held += [bytes.fromhex(recipient_set([recipient])) * 4, recipient.encode()[:32], recipient.encode()[-32:]]
    opened, tried = 0, 0
    for path, wrapped, data, frames in packs(site):
        salt = bytes.fromhex(path.name)
        purposes = ("pack", "list", "footer", "chunk id", "part id", "key id", "chunker seed", "unencrypted")
        keys = {derive(key, purpose, used) for key, purpose, used in product(held, purposes, (salt, b""))}
        keys |= set(held) | {wrapped[:32], wrapped[-32:]}
        for number, sealed, frame in sealed_frames(data, frames):
            for key in keys:
                tried += 1
                with pytest.raises(Damaged):
                    FrameCipher(key, site.tenant.slug, path.name).open(
                        number, frame.kind, frame.plain, sealed
                    )
            right = derive(pyrage.decrypt(wrapped, [site.identity]), "pack", salt)
            FrameCipher(right, site.tenant.slug, path.name).open(number, frame.kind, frame.plain, sealed)
            opened += 1
    assert opened  # the same frames open for the identity: the trial itself is sound
    assert tried > 50 * opened
    with_identity(site, site.identity)
    assert restore(site, second) == second["rows"]


def sealed_frames(data: bytes, frames: list[Any]) -> Iterator[tuple[int, bytes, Any]]:
    """Yield number, sealed bytes and description of each frame."""
    at = 32
    for number, frame in enumerate(frames):
        yield number, data[at : at + frame.sealed], frame
        at += frame.sealed


def test_no_data_key_is_left_where_the_cluster_could_find_it(site: Site) -> None:
    """Neither in a Secret, nor in the store, nor in what the stages said."""
    ended = site.chain.run(site.backup())
    facts(ended, "upload")
    said = b"".join(one.stderr.encode() + repr(one.result).encode() for one in ended.values())
    files = [path for path in site.chain.folder.rglob("*") if path.is_file()]
    everything = said + b"".join(path.read_bytes() for path in files)
    for _, wrapped, _, _ in packs(site):
        secret = pyrage.decrypt(wrapped, [site.identity])
        assert secret not in everything
        assert secret.hex().encode() not in everything


def test_without_encryption_a_backup_is_restored_without_identity(site: Site) -> None:
    """And the manifest says so to whoever looks."""
    without_identity(site)
    backup = back_up(site, encryption="None", recipients=[])
    assert backup["encryption"] == "None"
    encryption = manifest(site, backup)["encryption"]
    assert (encryption["mode"], encryption["recipients"]) == ("None", [])
    assert restore(site, backup) == backup["rows"]
    site.chain.write_secret("keys", {"indexKey": b"n" * 32})  # another cluster's
    assert restore(site, backup) == backup["rows"]


def test_encrypted_and_readable_backups_share_no_object(site: Site) -> None:
    """Each builds on the newest of its own kind."""
    sealed = [back_up(site)]
    readable = [back_up(site, encryption="None", recipients=[])]
    sealed.append(back_up(site))
    readable.append(back_up(site, encryption="None", recipients=[]))
    named = [
        {ref["id"] for one in kind for part in ("packs", "lists") for ref in manifest(site, one)[part]}
        for kind in (sealed, readable)
    ]
    assert not named[0] & named[1]
    for first, second in (sealed, readable):
        assert second["bytes"]["added"] < first["bytes"]["added"] / 2
    assert restore(site, sealed[1]) == sealed[1]["rows"]


def test_who_was_let_in_later_restores_a_chain_of_incremental_backups(site: Site) -> None:
    """Several runs, several data keys; before that the message says whose identity is needed."""
    chain = [back_up(site)]
    for number in range(2):
        site.server.sql(f"UPDATE app_user SET password_hash = 'new {number}'", site.database)
        chain.append(back_up(site))
    newcomer = pyrage.x25519.Identity.generate()
    with_identity(site, newcomer)
    ended = site.chain.run(site.restore(chain[-1], strategy="NewDatabase", target_database="nobody"))
    refused = ended["open"].result
    assert refused is not None
    assert refused.reason is Reason.WRONG_KEY
    assert str(site.identity.to_public()) in refused.message
    assert "tenant-backup rewrap" in refused.message

    store = connect(Store("volume"), "", secrets=Path(), volume=objects(site))
    trusted, identity = site.chain.signing_key, Identity.parse(str(site.identity))
    done = rewrap(store, site.tenant.slug, trusted, identity, [str(newcomer.to_public())])
    assert (done.backups, done.data_keys, done.skipped) == (3, 3, ())
    for backup in chain:
        assert restore(site, backup) == backup["rows"]


def test_a_new_recipient_reads_the_next_backup_whole(site: Site) -> None:
    """It refers to nothing that was made for others only."""
    back_up(site)
    newcomer = pyrage.x25519.Identity.generate()
    both = [str(site.identity.to_public()), str(newcomer.to_public())]
    after = back_up(site, recipients=both)
    with_identity(site, newcomer)
    assert restore(site, after) == after["rows"]


def test_an_archive_forged_for_the_public_recipient_is_refused_by_the_stages(site: Site) -> None:
    """All made by somebody with the store's rights and the public key; the cluster's trust decides."""
    trusted = site.chain.signing_key
    stranger = replace(site.chain, index_key=b"i" * 32, signing_seed=b"s" * 32)
    stranger.write_keys()
    forged = facts(stranger.run(site.backup()), "upload")
    site.chain.write_keys()
    job = site.restore({**forged, "checksum": ""}, strategy="NewDatabase", target_database="nobody")
    assert job.signing_key == trusted
    ended = site.chain.run(job)
    result = ended["open"].result
    assert result is not None
    assert result.reason is Reason.SIGNATURE_INVALID
    assert site.server.sql("SELECT count(*) FROM pg_database WHERE datname = 'nobody'") == "0"
