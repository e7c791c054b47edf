"""QR codes of confs, read back by a scanner that is not ours."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunnel import config
from tunnel.cli import main

KEY = config.PrivateKey.from_random(bytes([1]) * 32)
OTHER = config.PrivateKey.from_random(bytes([2]) * 32).public_key()
SECRET = config.PresharedKey.from_bytes(bytes([3]) * 32)

CONF = f"""\
[Interface]
PrivateKeyFile = private.key
Address = 10.9.0.2/32, fd00:1::2/128
DNS = 10.9.0.1, corp.example
MTU = 1380
FwMark = 7
Table = off
PostUp = echo up
#! tunnel: LogLevel = debug

[Peer]
# friendly_name = office
PublicKey = {OTHER.to_base64()}
PresharedKey = {SECRET.to_base64()}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = vpn.example.com:51820
PersistentKeepalive = 25
"""

SCANNED = f"""\
[Interface]
PrivateKey = {KEY.to_base64()}
Address = 10.9.0.2/32, fd00:1::2/128
MTU = 1380
DNS = 10.9.0.1, corp.example

[Peer]
PublicKey = {OTHER.to_base64()}
PresharedKey = {SECRET.to_base64()}
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = vpn.example.com:51820
PersistentKeepalive = 25
"""

pytestmark = [pytest.mark.foreign("zbarimg")]


@pytest.fixture
def phone(tmp_path: Path) -> Path:
    (tmp_path / "private.key").write_text(KEY.to_base64())
    (tmp_path / "private.key").chmod(0o600)
    path = tmp_path / "phone.conf"
    path.write_text(CONF)
    path.chmod(0o600)
    return path


def run(*words: object, code: int = 0) -> tuple[str, str]:
    done = CliRunner().invoke(main.make_app("qr"), ["qr", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


def scanned(picture: Path) -> str:
    ran = subprocess.run(
        ["zbarimg", "--quiet", "--raw", "--oneshot", picture],
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.rstrip("\n") + "\n"


def drawn(path: Path, rows: list[list[bool]], scale: int = 4) -> Path:
    """A picture of the dark modules, as a portable graymap."""
    lines = [b"".join((b"\0" if dark else b"\xff") * scale for dark in row) for row in rows]
    size = f"{len(lines[0])} {len(lines) * scale}".encode()
    path.write_bytes(b"P5 " + size + b" 255\n" + b"".join(line * scale for line in lines))
    return path


def test_the_terminal(phone: Path, tmp_path: Path) -> None:
    text, notes = run(phone)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    rows = []
    for line in lines:
        rows += [[each in "▀█" for each in line], [each in "▄█" for each in line]]
    assert scanned(drawn(tmp_path / "terminal.pgm", rows)) == SCANNED
    assert notes == "left out, as the app does not know it: LogLevel, FwMark, Table, PostUp\n"
    assert KEY.to_base64() not in text


def test_a_png(phone: Path, tmp_path: Path) -> None:
    picture = tmp_path / "phone.png"
    text, _ = run(phone, "--png", picture)
    assert text == ""
    assert picture.stat().st_mode & 0o777 == 0o600
    assert scanned(picture) == SCANNED


def test_an_svg(phone: Path, tmp_path: Path) -> None:
    picture = tmp_path / "phone.svg"
    run(phone, "--svg", picture)
    assert picture.stat().st_mode & 0o777 == 0o600
    text = picture.read_text()
    sizes = re.search(r'width="(\d+)" height="(\d+)"', text)
    assert sizes is not None
    modules = int(sizes[1]) // 8
    rows = [[False] * modules for _ in range(modules)]
    (path,) = re.findall(r' d="([^"]+)"', text)
    x = y = 0.0
    # Strokes of one module's height: M and m move, h draws to the right.
    for command, first, second in re.findall(r"([Mmh])(-?[\d.]+)(?: ?(-?[\d.]+))?", path):
        if command == "h":
            for column in range(int(float(first))):
                rows[int(y)][int(x) + column] = True
            x += float(first)
        elif command == "M":
            x, y = float(first), float(second)
        else:
            x, y = x + float(first), y + float(second)
    assert scanned(drawn(tmp_path / "svg.pgm", rows)) == SCANNED


def test_nothing_is_overwritten(phone: Path) -> None:
    _, error = run(phone, "--png", phone, code=2)
    assert "exists" in error
    assert phone.read_text() == CONF


def test_what_does_not_fit_is_refused(phone: Path) -> None:
    networks = ", ".join(f"10.{number}.0.0/16" for number in range(250))
    phone.write_text(CONF.replace("0.0.0.0/0", networks))
    _, error = run(phone, code=2)
    assert "too large" in error


def test_a_conf_that_knows_no_way_is_warned_of(phone: Path) -> None:
    phone.write_text(CONF.replace("Endpoint = vpn.example.com:51820\n", ""))
    assert "Endpoint" in run(phone)[1]


def test_a_new_peer_is_scanned_without_a_file(phone: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub.conf"
    hub.write_text(
        f"[Interface]\nPrivateKey = {KEY.to_base64()}\nAddress = 10.9.0.1/24\nListenPort = 51820\n"
    )
    done = CliRunner().invoke(
        main.make_app("peer"), ["peer", "add", str(hub), "phone", "--endpoint", "192.0.2.1", "--qr"]
    )
    assert done.exit_code == 0, done.output
    rows = []
    for line in done.stdout.splitlines():
        rows += [[each in "▀█" for each in line], [each in "▄█" for each in line]]
    text = scanned(drawn(tmp_path / "peer.pgm", rows))
    theirs = config.parse(text, name="wg0")
    (peer,) = config.load(hub).peers
    assert theirs.interface.private_key is not None
    assert theirs.interface.private_key.public_key() == peer.public_key


def test_only_those_who_draw_load_the_library() -> None:
    code = "import sys, tunnel.cli.qr, tunnel.cli.peer, tunnel.cli.show; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "segno" not in ran.stdout.split()
