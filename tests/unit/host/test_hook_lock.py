"""What tells the next command that a hook of a killed daemon still runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnel.host import hook_lock, record
from tunnel.host.hook_lock import held_by_hook, wait_for_hook


@pytest.mark.parametrize("ends_first", [0, 1])
def test_of_two_hooks_at_a_time_each_is_waited_for(
    ends_first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "STATE_DIR", tmp_path)
    hooks = [held_by_hook("wg0"), held_by_hook("wg0")]
    for hook in hooks:
        assert hook.__enter__()
    hooks[ends_first].__exit__(None, None, None)
    assert hook_lock._path("wg0").exists()
    hooks[1 - ends_first].__exit__(None, None, None)
    assert not hook_lock._path("wg0").exists()
    assert wait_for_hook("wg0", 0)


def test_the_second_of_two_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "STATE_DIR", tmp_path)
    with held_by_hook("wg0"):
        second = held_by_hook("wg0")
        second.__enter__()
    assert not wait_for_hook("wg0", 0)
    second.__exit__(None, None, None)
