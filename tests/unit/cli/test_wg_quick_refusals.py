"""What `tunnel-wg-quick up` refuses of a conf that is for `tunnel up`, before it does anything."""

from __future__ import annotations

import pytest
import trio

from tests.support.confs import INTERFACE, PEER, read
from tunnel.errors import DaemonError
from tunnel.wg_quick import wg_quick


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("NetNS = office", "NetNS"),
        ("Mode = tap", "Mode = tap"),
        ("Records = flows", "Records"),
        ("PeerUp = true", "PeerUp"),
        ("PeerDown = true", "PeerDown"),
        (f"[Peer]\nPublicKey = {PEER}\nRateLimit = 20M", "RateLimit"),
        (f"[Peer]\nPublicKey = {PEER}\nQuota = 20G", "Quota"),
    ],
)
def test_keys_that_no_program_of_wg_quick_knows(line: str, named: str) -> None:
    config = read(f"{INTERFACE}[Tunnel]\n{line}\n")
    with pytest.raises(DaemonError, match=f"^{named} is for tunnel up alone"):
        trio.run(wg_quick.up, config, "false", print)
