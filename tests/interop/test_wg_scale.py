"""255 × 256 networks of both families on one peer, in and out, while another peer's pings pass."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.root, pytest.mark.foreign("wg")]
