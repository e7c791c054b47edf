"""What `tunnel` and `tunnel.testing` offer: seen by dir() and help(), loaded when asked for."""

from __future__ import annotations

import pydoc
import subprocess
import sys
from types import ModuleType

import pytest

import tunnel
from tunnel import testing


@pytest.mark.parametrize("module", [tunnel, testing], ids=["tunnel", "testing"])
def test_every_name_is_there_documented_and_shown(module: ModuleType) -> None:
    assert dir(module) == sorted(module.__all__)
    shown = pydoc.plain(pydoc.render_doc(module))
    for name in module.__all__:
        assert getattr(module, name).__doc__
        assert name in shown
    with pytest.raises(AttributeError, match="nonsense"):
        module.nonsense  # noqa: B018


def test_the_plugin_costs_a_run_nothing_that_does_not_use_it() -> None:
    code = "import sys, tunnel.testing.plugin as p; print(*(set(sys.modules) - set(p.__dict__)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {name for name in ran.stdout.split() if name.partition(".")[0] in ("tunnel", "crypto")}
    assert ours == {"tunnel", "tunnel.testing", "tunnel.testing.plugin"}
    assert "trio" not in ran.stdout.split()


def test_a_trio_program_loads_no_asyncio() -> None:
    code = "import sys, tunnel; tunnel.open; print('asyncio' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
