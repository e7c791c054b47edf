"""What hooks do to forwarding: judged by program, chain and target."""

from __future__ import annotations

import pytest

from tunnel.doctor.hooks import forwards

V4, V6, BOTH = [{4}], [{6}], [{4, 6}]


@pytest.mark.parametrize(
    ("hook", "versions"),
    [
        ("iptables -A FORWARD -i %i -j ACCEPT", V4),
        ("ip6tables -I FORWARD 1 -i wg0 -j ACCEPT", V6),
        ("/usr/sbin/iptables-legacy --append FORWARD --jump ACCEPT", V4),
        ("sudo iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE", V4),
        ("A=b iptables -t nat -A POSTROUTING -o eth0 -j SNAT --to 192.0.2.1; true", V4),
        ("iptables -A FORWARD -j ACCEPT && ip6tables -A FORWARD -j ACCEPT", [{4}, {6}]),
        ("iptables -I DOCKER-USER -i %i -j ACCEPT", V4),
        ("nft add rule inet nat post 'oifname eth0 masquerade'", BOTH),
        ("nft add rule inet nat post ip saddr 10.0.0.0/8 oifname eth0 masquerade", V4),
        ("nft insert rule ip6 filter FORWARD iifname %i accept", V6),
        ("sysctl -w net.ipv4.ip_forward=1", V4),
        ("sysctl -w net.ipv6.conf.all.forwarding=1 >/dev/null", V6),
        ("iptables -A FORWARD -i %i -j DROP", []),
        ("iptables -A INPUT -i %i -j ACCEPT", []),
        ("iptables -D FORWARD -i %i -j ACCEPT", []),
        ("iptables -t nat -D POSTROUTING -j MASQUERADE", []),
        ("nft delete rule inet nat post handle 5 masquerade", []),
        ("nft add rule inet filter forward iifname %i drop", []),
        ("sysctl -w net.ipv4.ip_forward=0", []),
        ("echo forward masquerade snat", []),
        ("port-forward.sh 'unclosed", []),
        ("", []),
    ],
)
def test_hooks(hook: str, versions: list[set[int]]) -> None:
    assert [set(found) for found in forwards(hook)] == versions
