"""What a reload reports of the keys of [Tunnel] that take effect at once."""

from __future__ import annotations

import pytest

from tests.support.doctor_facts import conf
from tunnel import config as confs
from tunnel.config.keys import ConfKey, keys_of
from tunnel.config.options import TunnelOptions
from tunnel.daemon import reload

LIVE = [key for key in keys_of(TunnelOptions).values() if key.reload is confs.Reload.LIVE]
HOOKS = [key for key in LIVE if key.split is not None]


@pytest.mark.parametrize("key", HOOKS, ids=lambda key: key.name)
def test_a_hook_that_counts_at_once_is_a_change_without_its_text(key: ConfKey) -> None:
    """Which may hold a secret."""
    old, new = conf(), conf(f"#! tunnel: {key.name} = {key.example}")
    (change,) = reload._changed_options(old, new)
    assert str(change) == f"~ {key.name}: its new value counts from now on"
    assert not list(reload._changed_options(new, new))


@pytest.mark.parametrize("key", [key for key in LIVE if key not in HOOKS], ids=lambda key: key.name)
def test_an_option_that_counts_at_once_is_a_change(key: ConfKey) -> None:
    old, new = conf(), conf(f"#! tunnel: {key.name} = {key.example}")
    (change,) = reload._changed_options(old, new)
    was = key.write(getattr(old.interface.options, key.field))
    assert (change.sign, change.subject) == ("~", key.name)
    assert change.detail == f"{was} becomes {key.example}"
    assert not list(reload._changed_options(new, new))
