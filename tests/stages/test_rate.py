"""Rates: the bucket by arithmetic, the stages by what a run takes at least."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_backup.contract.reasons import ExitCode
from tenant_backup.stages.rate import Brake, TokenBucket
from tests.stages.pod import Sent, catalogue_of, dump, new_pod, upload
from tests.stages.store.site import Archive, manifest_of, packs, volume_site

MIB = 1 << 20


def test_a_full_bucket_lets_a_burst_go_and_then_keeps_to_the_rate() -> None:
    """Ten bytes per second, twenty at once."""
    bucket = TokenBucket(10, 20, started=100)
    assert [bucket.take(20, 100), bucket.take(5, 100), bucket.take(5, 100)] == [0, 0.5, 1.0]
    assert bucket.take(10, 102) == 0  # the debt of ten is paid, and ten more have come


def test_a_pause_saves_no_more_than_a_burst() -> None:
    """An hour of silence is not an hour's worth of bytes."""
    bucket = TokenBucket(10, 20, started=0)
    assert bucket.take(30, 3600) == 1.0


def test_what_is_bigger_than_the_bucket_goes_and_the_next_waits_for_it() -> None:
    """A pack has more bytes than a slow rate's burst."""
    bucket = TokenBucket(10, 10, started=0)
    assert bucket.take(110, 0) == 10.0
    assert bucket.take(10, 10) == 1.0


def test_a_clock_read_out_of_order_gives_nothing_away() -> None:
    """Two threads read the clock and take the lock in another order."""
    bucket = TokenBucket(10, 10, started=0)
    bucket.take(10, 5)
    assert bucket.take(10, 4) == 1.0
    assert bucket.take(10, 5) == 2.0


@given(
    rate=st.integers(1, 10**9),
    burst=st.integers(1, 10**9),
    asked=st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 1000)), min_size=1, max_size=30),
)
def test_no_more_than_rate_and_burst_ever_go(rate: int, burst: int, asked: list[tuple[int, float]]) -> None:
    """Whoever waits as told has, at the moment the last one goes, kept to the rate since the start."""
    bucket, now, gone = TokenBucket(rate, burst, started=0), 0.0, 0
    for count, pause in asked:
        now += pause
        now += bucket.take(count, now)
        gone += count
        assert gone <= (burst + rate * now) * (1 + 1e-9) + 1


def test_no_rate_is_no_brake() -> None:
    """Zero is no limit, not a standstill."""
    Brake(0).spend(10**18)


@pytest.mark.parametrize("connections", [1, 4])
def test_rows_are_read_at_most_at_the_rate(connections: int) -> None:
    """All connections together; the one who sends them is slowed down, and the backup is whole."""
    rate, each = MIB, 4 * MIB // connections
    rows = b"x" * 1023 + b"\n"
    segments: Sent = {f"t1/{n}": (rows * (each // 1024), each // 1024) for n in range(connections)}
    with new_pod() as pod:
        pod.prepare()
        pod.peer(upload)
        began = time.monotonic()
        producer = pod.peer(dump, segments, catalogue_of(segments))
        ended = pod.start("archive", replace(pod.backup_job(), read_rate=rate)).ended()
        producer.join()
        took = time.monotonic() - began
        assert (ended.code, producer.exitcode) == (ExitCode.SUCCESS, 0)
    assert took >= (4 * MIB - rate) / rate


def test_packs_are_sent_at_most_at_the_rate() -> None:
    """Three at once share it."""
    rate = MIB
    with new_pod() as pod:
        site = volume_site(pod).with_older_list()
        pod.prepare()
        objects = packs(16, MIB // 4)
        began = time.monotonic()
        stage = pod.start("upload", site.backup(upload_rate=rate))
        archive = Archive(pod)
        for name, data in objects.items():
            archive.put(name, data)
        assert archive.stored(len(objects)) == set(objects)
        took = time.monotonic() - began
        archive.commit(manifest_of())
        assert stage.ended().code == ExitCode.SUCCESS
        archive.die()
    assert took >= (16 * MIB // 4 - rate) / rate
