"""`tunnel peer` on the conf of a tunnel that runs."""

from __future__ import annotations

import pytest

from tests.support.daemons import rewrite, status
from tests.support.hosts import TwoHosts
from tests.support.pairs import make_pair

pytestmark = pytest.mark.root


def test_peers_come_and_go_and_the_others_keep_their_sessions(two_hosts: TwoHosts) -> None:
    pair = make_pair(two_hosts)
    a, b = pair.hosts
    a.ping("10.77.0.2")

    def peers() -> dict[str, dict[str, object]]:
        return {peer["name"] or "b": peer for peer in status(pair.a)["peers"]}

    handshake = peers()["b"]["latest_handshake"]
    path = a.directory / "laptop.conf"

    def peer(*words: str) -> None:
        command, *others = words
        pair.a.tunnel("peer", command, str(pair.a.conf), *others)

    peer("add", "laptop", "--endpoint", "192.0.2.1", "--output", str(path))
    assert peers()["laptop"]["allowed_ips"] == ["10.77.0.3/32", "fd77::3/128"]
    peer("disable", "laptop")
    assert list(peers()) == ["b"]
    peer("enable", "laptop")
    peer("rename", "laptop", "phone")
    assert list(peers()) == ["b", "phone"]
    assert "  name: phone\n" in pair.a.tunnel("show", "wg0")
    a.ping("10.77.0.2")
    assert peers()["b"]["latest_handshake"] == handshake

    # As after a start or a reload behind that time.
    rewrite(
        pair.a,
        "# friendly_name = phone\n",
        "# friendly_name = phone\n# expires = 2020-01-01T00:00:00Z\n",
    )
    pair.a.tunnel("reload", "wg0")
    assert list(peers()) == ["b"]
    rewrite(pair.a, "# expires = 2020-", "# expires = 3020-")
    pair.a.tunnel("reload", "wg0")
    assert peers()["phone"]["expires"]

    pair.b.down()
    pair.b.tunnel("up", str(path))
    b.ping("10.77.0.1")
    b.ping("fd77::1")
    assert peers()["phone"]["latest_handshake"]
    peer("remove", "phone")
    assert list(peers()) == ["b"]
