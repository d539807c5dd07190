"""How a stage learns that a peer will never come."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stages import wire

_HOLD = "import sys, time, pathlib; from tenant_backup.stages import wire; "
_HOLD += "wire.hold_life(pathlib.Path(sys.argv[1]), 'archive'); print('held', flush=True); time.sleep(60)"


def test_a_peer_that_has_not_started_is_waited_for(tmp_path: Path) -> None:
    """Containers of a pod start one after the other."""
    assert not wire.has_ended(tmp_path, "archive")


def test_a_peer_that_was_killed_before_it_connected_is_noticed_at_once(tmp_path: Path) -> None:
    """SIGKILL leaves no flag; the kernel releases the lock."""
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE) as peer:
        assert peer.stdout is not None
        assert peer.stdout.readline() == b"held\n"
        assert not wire.has_ended(tmp_path, "archive")
        peer.kill()
    assert wire.has_ended(tmp_path, "archive")
    with pytest.raises(Failure) as caught:
        wire.connect(tmp_path / "archive.sock", "archive")
    assert caught.value.reason is Reason.PEER_FAILED


_PIECES = st.one_of(
    st.binary(max_size=50), st.integers(0, 3 * wire.BLOCK).map(bytes), st.just(b"1\tx\n" * 5000)
)


@given(st.lists(_PIECES, max_size=4), st.integers(0, wire.MARKER_LENGTH))
def test_a_raw_stream_of_any_bytes_arrives_whole(pieces: list[bytes], beginning: int) -> None:
    """Also one of zeros, with which the marker begins, and one that ends as the marker begins."""
    marker = wire.new_marker()
    sent = b"".join(pieces) + (marker[:beginning] if beginning < len(marker) else b"")
    producer, consumer = socket.socketpair()
    with producer, consumer:
        thread = threading.Thread(target=producer.sendall, args=(sent + marker,))
        thread.start()
        arrived = b"".join(map(bytes, wire.Reader(consumer, "dump").raw(marker)))
        thread.join()
    assert arrived == sent
