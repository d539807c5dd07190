"""A prefix changes hands: by word of a person, once, and to one cluster only."""

from __future__ import annotations

import dataclasses
import json
import threading

import pytest

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stages import ownership
from tenant_backup.stores.base import digest_of
from tests.stages.pod import TENANT

from .site import Site

LOST, NEW, THIRD = "lost", "new", "third"


def tenant(cluster: str, **changes: str) -> jobs.Tenant:
    return dataclasses.replace(TENANT, cluster_id=cluster, **changes)


def owner(site: Site) -> str:
    marker = ownership.owner(site.store())
    assert isinstance(marker, dict)
    return str(marker["clusterId"])


def refused(site: Site, cluster: str, adopt: str = "", **changes: str) -> str:
    """Claim in vain; return what was said."""
    with pytest.raises(Failure) as failure:
        ownership.claim(site.store(), tenant(cluster, **changes), adopt)
    assert failure.value.reason is Reason.STORE_FOREIGN
    return failure.value.message


@pytest.fixture
def lost(site: Site) -> Site:
    """A prefix whose cluster is gone."""
    ownership.claim(site.store(), tenant(LOST))
    return site


def test_a_prefix_is_taken_over_by_the_owners_id(lost: Site) -> None:
    """The message has the annotation to copy. From then on the old cluster is the stranger."""
    assert f"tenantbackup.dev/adopt={LOST}" in refused(lost, NEW)
    before = lost.object("TENANT")
    ownership.claim(lost.store(), tenant(NEW), LOST)

    assert owner(lost) == NEW
    assert lost.object("TENANT") == before
    refused(lost, LOST)
    ownership.claim(lost.store(), tenant(NEW))  # the annotation is not needed any more
    ownership.claim(lost.store(), tenant(NEW), LOST)  # nor does it do anything
    assert ownership.owner(lost.store()) == json.loads(lost.object("TENANT-2"))
    assert lost.store().stat("TENANT-3") is None


@pytest.mark.parametrize("word", ["", "other", "lostt", "los", "new"])
def test_another_word_takes_nothing(lost: Site, word: str) -> None:
    refused(lost, NEW, word)
    assert owner(lost) == LOST


@pytest.mark.parametrize("changes", [{"name": "globex"}, {"namespace": "elsewhere"}])
def test_another_tenants_prefix_is_never_taken(lost: Site, changes: dict[str, str]) -> None:
    """Whatever the annotation says: it is about clusters."""
    refused(lost, NEW, LOST, **changes)
    assert owner(lost) == LOST


@pytest.mark.parametrize("junk", [b"", b"hello", b"[]", b'{"format": 2, "clusterId": "lost"}'])
def test_a_marker_that_is_not_ours_is_never_taken(on_volume: Site, junk: bytes) -> None:
    on_volume.store().put("TENANT", junk, digest_of(junk))
    refused(on_volume, NEW, LOST)


def test_of_two_clusters_that_take_over_at_once_one_is_refused(lost: Site) -> None:
    """Create-only decides, and the loser's annotation does not let it try again."""
    start = threading.Barrier(2)
    outcomes: dict[str, str] = {}

    def claim(cluster: str) -> None:
        store = lost.store()
        start.wait()
        try:
            ownership.claim(store, tenant(cluster), LOST)
            outcomes[cluster] = "won"
        except Failure as failure:
            outcomes[cluster] = failure.reason

    threads = [threading.Thread(target=claim, args=(name,)) for name in (NEW, THIRD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    winner = owner(lost)
    (loser,) = {NEW, THIRD} - {winner}
    assert outcomes == {winner: "won", loser: Reason.STORE_FOREIGN}
    refused(lost, loser, LOST)
    assert owner(lost) == winner


def test_two_annotations_that_stay_do_not_take_it_in_turns(lost: Site) -> None:
    """A word counts once; another word is another time."""
    ownership.claim(lost.store(), tenant(NEW), LOST)
    ownership.claim(lost.store(), tenant(LOST), NEW)
    refused(lost, NEW, LOST)
    assert owner(lost) == LOST

    ownership.claim(lost.store(), tenant(NEW), f"{LOST} 2026-11")
    assert owner(lost) == NEW


def test_dying_after_the_marker_was_added_is_no_harm(lost: Site) -> None:
    """The next attempt finds itself the owner; before it was added, the old one still is."""
    text = json.dumps(
        {
            "format": 1,
            "clusterId": NEW,
            "namespace": TENANT.namespace,
            "name": TENANT.name,
            "slug": TENANT.slug,
            "adopted": LOST,
        }
    ).encode()
    lost.store().put("TENANT-2", text, digest_of(text))
    ownership.claim(lost.store(), tenant(NEW), LOST)

    assert owner(lost) == NEW
