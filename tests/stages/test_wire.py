"""How a stage learns that a peer will never come."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
