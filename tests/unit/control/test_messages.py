"""Results survive the control socket, also to and from another version of the program."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.control.json_client import Dialogue
from tunnel.control.json_protocol import ControlError
from tunnel.control.messages import Message
from tunnel.control.messages.changes import Change, ReloadResult, SavedLine, SaveResult
from tunnel.control.messages.status import PeerStatus, TunnelStatus

KINDS: list[type[Message]] = [ReloadResult, SaveResult, TunnelStatus]


@pytest.mark.parametrize("kind", KINDS)
def test_result_survives_json(kind: type[Message]) -> None:
    @given(st.from_type(kind))
    def check(result: Message) -> None:
        # By their text, as a number that is none is not equal to itself.
        assert repr(kind.from_json(json.loads(json.dumps(result.to_json())))) == repr(result)

    check()


def test_fields_of_a_newer_version_are_ignored_and_of_an_older_one_have_defaults() -> None:
    data = {
        "changed": True,
        "path": "/etc/tunnel/wg0.conf",
        "lines": [{"sign": "+", "number": 3, "text": "MTU = 1400", "colour": "green"}],
        "duration": 1.5,
    }
    lines = (SavedLine("+", 3, "MTU = 1400"),)
    assert SaveResult.from_json(data) == SaveResult(True, "/etc/tunnel/wg0.conf", lines)
    with pytest.raises(TypeError):
        Change.from_json({"sign": "+"})


def test_peers_of_a_status_are_peers() -> None:
    peer = PeerStatus("k", False, None, None, ("10.0.0.0/8",), 0.0, 0, 0, 0)
    assert PeerStatus.from_json(json.loads(json.dumps(peer.to_json()))) == peer


@given(st.lists(st.text(), max_size=5), st.integers(1, 50))
def test_lines_are_taken_whole_however_they_come(texts: list[str], size: int) -> None:
    lines = [json.dumps({"v": 1, "id": 1, "result": text}).encode() + b"\n" for text in texts]
    data = b"".join(lines)
    dialogue, taken = Dialogue(), []
    for start in range(0, len(data), size):
        dialogue.feed(data[start : start + size])
        while dialogue.has_line():
            taken.append(dialogue.take_result())
    assert taken == texts


def test_stream_that_fails_raises_after_its_events() -> None:
    dialogue = Dialogue()
    dialogue.feed(b'{"event": {"type": "up", "time": 1.0}}\n')
    dialogue.feed(b'{"error": {"code": "internal", "message": "keys failed"}}\n')
    assert dialogue.take_event().type == "up"
    with pytest.raises(ControlError, match="keys failed") as raised:
        dialogue.take_event()
    assert raised.value.code == "internal"


def test_events_before_a_failure_are_taken_before_it_is_raised() -> None:
    dialogue = Dialogue()
    dialogue.feed(
        b'{"event": {"type": "up", "time": 1.0}}\n{"event": {"type": "port", "time": 2.0}}\n'
    )
    dialogue.feed(b'{"error": {"code": "internal", "message": "keys failed"}}\n')
    assert [event.type for event in dialogue.take_events()] == ["up", "port"]
    for _ in range(2):
        with pytest.raises(ControlError, match="keys failed"):
            dialogue.take_events()
