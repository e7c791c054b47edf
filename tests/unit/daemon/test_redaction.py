"""What a conf says about the parts of a daemon: here, what its hooks may put into the log."""

from __future__ import annotations

import base64

import pytest

from tunnel.config import PrivateKey, parse
from tunnel.daemon import redaction
from tunnel.device import features
from tunnel.errors import DaemonError
from tunnel.log import redact
from tunnel.log.redact import KnownSecrets


def test_hooks_are_told_without_keys_but_the_public_ones_of_the_conf() -> None:
    private, public, other = (base64.b64encode(bytes([n]) * 32).decode() for n in (64, 2, 3))
    config = parse(
        f"[Interface]\nPrivateKey = {private}\n[Peer]\nPublicKey = {public}\n", name="wg0"
    )
    own = PrivateKey.from_base64(private).public_key().to_base64()
    hide = redaction.hook_hider(config)
    assert (
        hide(f"PostUp: wg set wg0 peer {public} preshared-key <(printf %s {other}) # 100%")
        == f"PostUp: wg set wg0 peer {public} preshared-key <(printf %s (hidden)) # 100%"
    )
    assert hide(f"{own} {private}") == f"{own} (hidden)"
    assert hide("red \x1b[31m") == r"red \x1b[31m"


def test_keys_of_a_conf_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_private", KnownSecrets())
    monkeypatch.setattr(redact, "_preshared", KnownSecrets())
    keys = [base64.b64encode(bytes([n]) * 32).decode() for n in (64, 2, 3)]
    redaction.hide_secrets(
        parse(
            f"[Interface]\nPrivateKey = {keys[0]}\n"
            f"[Peer]\nPublicKey = {keys[1]}\nPresharedKey = {keys[2]}\n",
            name="wg0",
        )
    )
    assert redact.redact(" ".join(keys)) == f"(hidden) {keys[1]} (hidden)"


def test_a_datapath_that_there_is_not_is_an_error_for_people(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TUNNEL_DATAPATH", "nonsense")
    with pytest.raises(DaemonError, match="TUNNEL_DATAPATH: found 'nonsense', expected one of"):
        features.load_datapath()
    assert features.load_datapath("python").name == "python"
