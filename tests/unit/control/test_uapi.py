"""The UAPI over a socket: operations, their errno, and that a `set` is applied whole or not."""

from __future__ import annotations

import errno
import os
import stat
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support.operations import longest_turn
from tests.support.uapi_device import (
    PRIVATE,
    PUBLIC_1,
    PUBLIC_2,
    ZERO,
    exchange,
    make_device,
    served,
)
from tunnel.control import uapi
from tunnel.control.socket_file import SocketFile
from tunnel.control.unix_socket import bind_unix_socket
from tunnel.engine import boot_time

GET = "get=1\n\n"
OK = "errno=0\n\n"


def test_get_of_a_bare_device(tmp_path: Path) -> None:
    device, udp = make_device()
    engine = device.engine
    engine.interface.set_private_key(None, boot_time())
    udp.port = 0
    assert exchange(device, tmp_path, GET) == [OK]


def test_what_is_set_is_what_is_got(tmp_path: Path) -> None:
    device, _ = make_device()
    lines = [
        f"private_key={PRIVATE}",
        "listen_port=1234",
        "fwmark=17",
        f"public_key={PUBLIC_1}",
        f"preshared_key={ZERO}",
        "protocol_version=1",
        "endpoint=[2001:db8::7]:51821",
        "persistent_keepalive_interval=25",
        "allowed_ip=10.9.0.0/16",
        "allowed_ip=10.1.0.0/16",
        "allowed_ip=fd00::/64",
    ]
    answers = exchange(device, tmp_path, "set=1\n" + "\n".join(lines) + "\n\n", GET)
    counters = {
        "last_handshake_time_sec=0",
        "last_handshake_time_nsec=0",
        "tx_bytes=0",
        "rx_bytes=0",
        "errno=0",
        "",
    }
    assert answers[0] == OK
    assert [line for line in answers[1].split("\n") if line not in counters] == lines


def test_get_tells_handshake_and_transfer(tmp_path: Path) -> None:
    device, _ = make_device()
    engine = device.engine
    exchange(device, tmp_path, f"set=1\npublic_key={PUBLIC_1}\n\n")
    (peer,) = engine.interface.peers.values()
    peer.last_handshake_unix_ns = 1_700_000_000_123_456_789
    peer.tx_bytes, peer.rx_bytes = 1 << 40, 7
    (answer,) = exchange(device, tmp_path, GET)
    assert "last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=123456789\n" in answer
    assert "tx_bytes=1099511627776\nrx_bytes=7\n" in answer


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("set=1\nlisten_port\n\n", f"errno=-{errno.EPROTO}\n\n"),
        ("set=1\nlisten_port=x\n\n", f"errno=-{errno.EINVAL}\n\n"),
        ("set=1\nlisten_port=7777\n\n", f"errno=-{errno.EADDRINUSE}\n\n"),
        ("get=1\nlisten_port=1\n\n", f"errno={errno.EINVAL}\n\n"),
        ("set=1\n\n", OK),
    ],
)
def test_errno_is_negative_for_set_and_positive_for_get(
    tmp_path: Path, request_: str, answer: str
) -> None:
    device, _ = make_device()
    assert exchange(device, tmp_path, request_) == [answer]


def test_operations_follow_each_other_until_an_unknown_one(tmp_path: Path) -> None:
    device, udp = make_device()
    engine = device.engine
    engine.interface.set_private_key(None, boot_time())
    (answer,) = exchange(
        device,
        tmp_path,
        "set=1\nlisten_port=1\nnonsense\n\n"
        "set=1\nlisten_port=2\n\n"
        "get=1\n\n"
        "set=2\nlisten_port=3\n\n"
        "set=1\nlisten_port=4\n\n",
    )
    assert answer == f"errno=-{errno.EPROTO}\n\n{OK}listen_port=2\n{OK}"
    assert udp.port == 2


GOOD = (
    f"set=1\nprivate_key={PRIVATE}\nlisten_port=6000\nfwmark=5\nreplace_peers=true\n"
    f"public_key={PUBLIC_2}\nallowed_ip=10.0.0.0/8\nallowed_ip=10.7.0.0/16\n"
)


@pytest.mark.parametrize(
    "bad",
    [
        f"{GOOD}allowed_ip=10.0.0.0/99\n\n",
        f"{GOOD}rubbish\n\n",
        f"{GOOD}public_key={PUBLIC_1}\nremove=no\n\n",
        f"{GOOD.replace('listen_port=6000', 'listen_port=7777')}\n",
        f"{GOOD.replace('fwmark=5', 'fwmark=6')}\n",
        GOOD,
        f"{GOOD}{'x' * 3000}=\n\n",
        f"{GOOD}{'x' * 300_000}",
    ],
    ids=["value", "protocol", "boolean", "port", "mark", "unfinished", "long", "endless"],
)
def test_failed_set_changes_nothing(tmp_path: Path, bad: str) -> None:
    device, udp = make_device()
    exchange(
        device,
        tmp_path,
        f"set=1\npublic_key={PUBLIC_1}\npreshared_key={'55' * 32}\nendpoint=192.0.2.9:9\n"
        "allowed_ip=10.0.0.0/8\nallowed_ip=fd00::/8\npersistent_keepalive_interval=9\n\n",
    )
    if "fwmark=6" in bad:
        udp.may_mark = False
    before, refused, after = exchange(device, tmp_path, GET, bad, GET)
    assert PUBLIC_1 in before
    assert after == before
    assert "errno=0" not in refused
    # The same without the mistake goes through.
    udp.may_mark = True
    assert exchange(device, tmp_path, f"{GOOD}\n") == [OK]


def test_refused_set_is_read_to_its_end_before_the_answer(tmp_path: Path) -> None:
    device, _ = make_device()
    lines = "".join(f"allowed_ip=10.{n >> 8}.{n & 255}.0/24\n" for n in range(60_000))
    (answer,) = exchange(device, tmp_path, f"set=1\nbad\n{lines}\n{GET}")
    assert answer.startswith(f"errno=-{errno.EPROTO}\n\nprivate_key=")


def test_set_beyond_all_bounds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uapi, "MAX_SET", 100_000)
    device, _ = make_device()
    engine = device.engine
    line = "allowed_ip=10.0.0.0/8\n"
    within = f"set=1\npublic_key={PUBLIC_1}\n{line * 1000}\n"
    beyond = f"set=1\npublic_key={PUBLIC_2}\n{line * 10_000}\n"
    assert exchange(device, tmp_path, within, beyond) == [OK, f"errno=-{errno.E2BIG}\n\n"]
    assert len(engine.interface.peers) == 1


def test_client_that_does_not_read_holds_up_nobody(tmp_path: Path) -> None:
    device, udp = make_device()
    lines = "".join(f"allowed_ip=10.{n >> 8}.{n & 255}.0/24\n" for n in range(60_000))

    async def main() -> None:
        async with served(device, tmp_path) as talk:
            assert await talk(f"set=1\npublic_key={PUBLIC_1}\n{lines}\n".encode()) == OK.encode()
            async with await trio.open_unix_socket(str(tmp_path / "wg0.sock")) as stalled:
                await stalled.send_all(GET.encode())
                await stalled.receive_some(1)
                assert await talk(b"set=1\nlisten_port=9\n\n") == OK.encode()
                assert (await talk(GET.encode())).count(b"allowed_ip=") == 60_000

    trio.run(main)
    assert udp.port == 9


def test_get_that_races_replace_peers_is_the_one_or_the_other(tmp_path: Path) -> None:
    device, _ = make_device()
    size = 20_000
    v4 = "".join(f"allowed_ip=10.{n >> 8}.{n & 255}.0/24\n" for n in range(size))
    sets = [
        f"set=1\nreplace_peers=true\npublic_key={key}\n{v4}\n".encode()
        for key in (PUBLIC_1, PUBLIC_2)
    ]

    async def main() -> None:
        async with served(device, tmp_path) as talk:
            await talk(sets[0])
            racing = True

            async def write() -> None:
                nonlocal racing
                for n in range(6):
                    assert await talk(sets[(n + 1) % 2]) == OK.encode()
                racing = False

            async def read() -> None:
                while racing:
                    answer = (await talk(GET.encode())).decode()
                    keys = [line for line in answer.split("\n") if line.startswith("public_key=")]
                    assert keys in ([f"public_key={PUBLIC_1}"], [f"public_key={PUBLIC_2}"])
                    assert answer.count("allowed_ip=") == size
                    assert answer.endswith(OK)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                nursery.start_soon(read)
                nursery.start_soon(read)

    trio.run(main)


def test_large_set_and_get_give_others_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, _ = make_device()
    v4 = "".join(f"allowed_ip=10.{n >> 8}.{n & 255}.0/24\n" for n in range(65_280))
    v6 = "".join(f"allowed_ip=fd00:0:{n:x}::/48\n" for n in range(65_280))
    slices: dict[str, float] = {}

    async def main() -> None:
        async with served(device, tmp_path) as talk:
            for name, request in (
                ("add", f"set=1\npublic_key={PUBLIC_1}\n{v4}{v6}\n"),
                ("get", GET),
                ("same", f"set=1\nreplace_peers=true\npublic_key={PUBLIC_1}\n{v4}{v6}\n"),
                ("move", f"set=1\npublic_key={PUBLIC_2}\n{v4}{v6}\n"),
                ("remove", f"set=1\npublic_key={PUBLIC_2}\nremove=true\n\n"),
            ):
                work = partial(talk, request.encode())
                answer, slices[name] = await longest_turn(work, monkeypatch)
                assert answer.endswith(OK.encode())
                if name == "get":
                    assert answer.count(b"allowed_ip=") == 130_560

    trio.run(main)
    assert max(slices.values()) < 4.0, slices


def test_socket_is_for_root_only_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "wireguard" / "wg0.sock"
    bind_unix_socket(path).close()
    with bind_unix_socket(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755 & ~_umask()
        with pytest.raises(OSError, match="listening") as refused:
            bind_unix_socket(path)
        assert refused.value.errno == errno.EADDRINUSE


def _umask() -> int:
    previous = os.umask(0)
    os.umask(previous)
    return previous


@pytest.mark.parametrize("inotify", [True, False])
@pytest.mark.parametrize("replaced", [True, False])
def test_removal_of_the_socket_file_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inotify: bool, replaced: bool
) -> None:
    if not inotify:
        monkeypatch.setattr("tunnel.control.socket_file._watch_folder", lambda folder: None)
        monkeypatch.setattr("tunnel.control.socket_file._LOOK_AGAIN", 0.05)
    path = tmp_path / "wg0.sock"
    with bind_unix_socket(path):
        file = SocketFile(path)

        async def main() -> None:
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(file.wait_removed)
                    await trio.testing.wait_all_tasks_blocked()
                    (tmp_path / "other").touch()
                    (tmp_path / "other").unlink()
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    assert nursery.child_tasks
                    if replaced:
                        (tmp_path / "new").touch()
                        path.unlink()
                        (tmp_path / "new").rename(path)
                    else:
                        path.unlink()

        trio.run(main)
        # What is not ours stays.
        file.remove()
        assert path.exists() is replaced
