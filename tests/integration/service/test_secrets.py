"""Secrets of a real daemon: in nothing that it writes or answers, and few times in its memory."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.support.daemons import follow, status
from tests.support.hosts import TwoHosts
from tests.support.secrets import counted_in_memory, secrets_in
from tunnel.lab.peers import Node, OurEnd, generate_preshared_key, render_conf

pytestmark = pytest.mark.root

MOST_COPIES = 6
"""Of a key in the memory of a daemon: in the conf, in the protocol, and in the ciphers' libraries,
some of which are left by what is gone (SECURITY.md says why)."""

# Files and sockets below the folders that it makes, and who may use them.
MODES = r"""
import os, stat
from pathlib import Path
for folder in ("/run/tunnel", "/run/wireguard", "/var/run/wireguard"):
    for path in (Path(folder), *Path(folder).rglob("*")):
        status = path.lstat()
        print(path, stat.filemode(status.st_mode), status.st_uid, status.st_gid)
"""
# Also of the processes: what each was started with, and what it has open or mapped, by name.
EVERYTHING = r"""
import os, socket, sys
from pathlib import Path
folders = ("/run/tunnel", "/run/wireguard", "/var/lib/tunnel")
paths = [path for folder in folders for path in Path(folder).rglob("*")]
for pid in sys.argv[1:]:
    paths += [Path(f"/proc/{pid}/{name}") for name in ("cmdline", "environ", "comm", "maps")]
    for link in (*Path(f"/proc/{pid}/fd").iterdir(), *Path(f"/proc/{pid}/task").iterdir()):
        target = os.readlink(link) if link.is_symlink() else Path(link, "comm").read_text()
        sys.stdout.buffer.write(b"== " + bytes(link) + b"\n" + os.fsencode(target) + b"\n")
for path in paths:
    if path.is_file():
        sys.stdout.buffer.write(b"== " + bytes(path) + b"\n" + path.read_bytes() + b"\n")
with socket.socket(socket.AF_UNIX) as metrics:
    metrics.connect("/run/tunnel/wg0.metrics")
    metrics.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    while data := metrics.recv(65536):
        sys.stdout.buffer.write(data)
"""


def test_no_secret_is_written_answered_or_left_in_memory(
    two_hosts: TwoHosts, tmp_path: Path
) -> None:
    psk, later = generate_preshared_key(), generate_preshared_key()
    a = Node(two_hosts.a, ("10.77.0.1/24",), "192.0.2.1")
    b = Node(two_hosts.b, ("10.77.0.2/24",), "192.0.2.2")
    other = OurEnd(b, render_conf(b, [a], psk))
    other.up()
    end = OurEnd(a, render_conf(a, [b], psk))
    keys = {"private key": a.private_key, "preshared key": psk, "later preshared key": later}
    written = end.tunnel("up", "--verbose", str(end.conf)).encode()
    events = follow(end)
    capture_file = tmp_path / "capture.pcapng"
    capture = two_hosts.a.popen(
        [sys.executable, "-m", "tunnel", "capture", "wg0", "-w", str(capture_file), "--count", "4"]
    )
    capture.wait_for_output("capturing wg0")
    two_hosts.a.ping("10.77.0.2", count=2)
    assert capture.wait(10) == 0, capture.log()
    pid = status(end)["pid"]
    in_memory = counted_in_memory(pid, keys)

    # A reload with another preshared key, one that fails, and one without the peer.
    text = end.conf.read_text()
    for conf in (
        text.replace(psk, later),
        text.replace(f"= {psk}", f"= {psk}x"),
        text.replace("PrivateKey", "PrivatKey"),
        text.partition("[Peer]")[0],
    ):
        end.conf.write_text(conf)
        written += end.tunnel("reload", "wg0", check=False).encode()
    end.conf.write_text(text)
    for command in (
        ("show", "wg0"),
        ("show", "wg0", "--json"),
        ("diff", "wg0"),
        ("doctor", "wg0", "--json", "--wait", "0.5"),
        ("reload", "wg0"),
        ("trace", "wg0", "--count", "1", "icmp", "--", "ping", "-c", "1", "-w", "10", "10.77.0.2"),
    ):
        written += end.tunnel(*command, check=False).encode()
    python = [sys.executable, "-c"]
    holder = status(end)["holder"]
    files = two_hosts.a.run([*python, EVERYTHING, str(pid), str(holder)]).stdout
    processes = [f"/proc/{each}/{name}" for each in (pid, holder) for name in ("environ", "fd/0")]
    for path in ("/run/tunnel/wg0.log", "/run/tunnel/wg0.state", *processes):
        assert f"== {path}\n" in files
    assert "tunnel_peers" in files
    written += files.encode() + events.log().encode() + capture_file.read_bytes()
    assert secrets_in(written, keys) == []
    # Nor will a core have them.
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 ", limits, re.M), limits
    # They are no secret from root that asks for them.
    (shown,) = json.loads(end.tunnel("show", "wg0", "--json", "--secrets"))
    assert secrets_in(json.dumps(shown).encode(), keys) == [
        "private key base64",
        "preshared key base64",
    ]

    # Raw only, as the ciphers need them, and none of the texts that the conf was read from.
    assert {name for name, count in in_memory.items() if count} == {
        "private key raw",
        "preshared key raw",
    }
    assert max(in_memory.values()) <= MOST_COPIES, in_memory

    modes = {}
    for line in two_hosts.a.run([*python, MODES]).stdout.splitlines():
        path, mode, *owner = line.split()
        assert owner == ["0", "0"], line
        assert mode[5] == mode[8] == "-", f"others may write to it: {line}"
        modes[path] = mode
    assert modes["/run/tunnel/wg0.sock"] == modes["/run/wireguard/wg0.sock"] == "srw-------"
    assert modes["/run/tunnel/wg0.state"] == modes["/run/tunnel/wg0.log"] == "-rw-------"
    readable = {path for path, mode in modes.items() if mode[0] != "d" and mode[4:] != "------"}
    assert readable <= {"/run/tunnel/wg0.metrics"}, "what has no secret"
