"""A few cells of the doctor's matrix: each shape without a fault, and faults of that shape alone.

`make doctor-matrix` runs all cells, for half an hour.
"""

from __future__ import annotations

import pytest

from tests.support.doctor_matrix import FAULTS, run_shape
from tests.support.doctor_scenes import SHAPES

pytestmark = [pytest.mark.root, pytest.mark.foreign("wg")]

CELLS = {
    "split": ("a's daemon hangs",),
    "both": ("IPv6 switched off at a",),
    "gateway": ("b does not masquerade",),
    "hub": ("a's AllowedIPs twice",),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_cells(shape: str) -> None:
    wanted = [fault for fault in FAULTS if fault.name in ("nothing", *CELLS.get(shape, ()))]
    found = list(run_shape(shape, wanted))
    assert len(found) == len(wanted)
    for fault, cell in found:
        assert cell.mistakes == (), fault.name
