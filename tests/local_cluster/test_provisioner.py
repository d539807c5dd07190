"""The thinking of the volume provisioner; that claims really bind is in test_node.py."""

from __future__ import annotations

import pytest

from hack.localcluster.provisioner import in_bytes


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [("1", 1), ("1Ki", 1024), ("1.5Mi", 1572864), ("2Gi", 2 * 2**30), ("5G", 5 * 10**9), ("7k", 7000)],
)
def test_a_quantity_means_as_many_bytes_as_in_kubernetes(quantity: str, expected: int) -> None:
    assert expected == in_bytes(quantity)
