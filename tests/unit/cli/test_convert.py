"""`tunnel import` and `tunnel export`: files, modes, lists, refusals."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from tests.support.confs import OTHER, PEER, PRIVATE, PSK
from tunnel import config, convert
from tunnel.cli import main
from tunnel.cli.convert import FormatName

CONF = f"""\
[Interface]
PrivateKey = {PRIVATE}
Address = 10.0.0.1/24
PostUp = echo up
[Peer]
# friendly_name = laptop
PublicKey = {PEER}
PresharedKey = {PSK}
AllowedIPs = 10.0.0.2/32
"""
UCI = f"""\
config interface 'one'
	option proto 'wireguard'
	option private_key '{PRIVATE}'
config interface 'two'
	option proto 'wireguard'
config wireguard_one
	option public_key '{PEER}'
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "office.conf").write_text(CONF)
    (tmp_path / "office.conf").chmod(0o600)
    (tmp_path / "network").write_text(UCI)
    return tmp_path


class Said(NamedTuple):
    stdout: str
    stderr: str


def run(*words: object, code: int = 0, stdin: str = "") -> Said:
    done = CliRunner().invoke(main.make_app(str(words[0])), list(map(str, words)), input=stdin)
    assert done.exit_code == code, (done.output, done.exception)
    return Said(done.stdout, done.stderr)


def test_the_names_of_the_formats_are_those_of_the_table() -> None:
    assert [each.value for each in FormatName] == list(convert.FORMATS)


def test_a_folder_gets_all_files_and_keys_are_hidden_from_the_start(folder: Path) -> None:
    (folder / "out").mkdir()
    done = run("export", "./office.conf", "--to", "networkd", "-o", "out")
    assert "office.conf:4: PostUp: a shell command" in done.stderr
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder / "out").iterdir()}
    assert modes == {"office.netdev": 0o600, "office.network": 0o644}
    again = run("import", "out/office.netdev", "out/office.network", "-o", "back.conf")
    assert "start it with: tunnel up ./back.conf" in again.stderr
    assert stat.S_IMODE((folder / "back.conf").stat().st_mode) == 0o600
    assert config.load(folder / "back.conf").peers == config.load(folder / "office.conf").peers


def test_nothing_is_overwritten_and_then_nothing_is_written(folder: Path) -> None:
    (folder / "office.network").write_text("mine")
    done = run("export", "./office.conf", "--to", "networkd", "-o", ".", code=2)
    assert "office.network: File exists; nothing was written" in done.stderr
    assert not (folder / "office.netdev").exists()
    assert (folder / "office.network").read_text() == "mine"


def test_two_files_need_a_folder(folder: Path) -> None:
    done = run("export", "./office.conf", "--to", "networkd", "-o", "new", code=2)
    assert "not a folder" in done.stderr


@pytest.mark.parametrize("form", convert.FORMATS)
def test_a_pipe_from_one_to_the_other(folder: Path, form: str) -> None:
    out = run("export", "./office.conf", "--to", form).stdout
    back = run("import", "-", "--name", "office", "-o", "-", stdin=out)
    found = config.parse(back.stdout, name="office")
    assert found.peers == config.load(folder / "office.conf").peers


@pytest.mark.parametrize("form", FormatName)
def test_limits_of_a_peer_are_listed_and_left_out(folder: Path, form: FormatName) -> None:
    conf = folder / "limits.conf"
    conf.write_text(f"{CONF}RateLimit = 10 Mbit/s\nQuota = 1 GB per day\n")
    conf.chmod(0o600)
    done = run("export", "./limits.conf", "--to", form, "-o", "-")
    assert "RateLimit of laptop: a key of this program alone" in done.stderr
    assert "Quota of laptop: a key of this program alone" in done.stderr
    assert "RateLimit" not in done.stdout
    assert "Quota" not in done.stdout


def test_strict_fails_before_anything_is_written(folder: Path) -> None:
    done = run("export", "./office.conf", "--to", "vyos", "-o", "x", "--strict", code=1)
    assert "PostUp" in done.stderr
    assert not (folder / "x").exists()
    run("export", "./office.conf", "--to", "wg-quick", "-o", "x", "--strict")


def test_programs_get_the_list_and_the_text_of_what_was_not_written(folder: Path) -> None:
    found = json.loads(run("export", "./office.conf", "--to", "openwrt", "--json").stdout)
    assert found["format"] == "openwrt"
    assert found["files"][0]["text"].startswith("# Add it to /etc/config/network")
    assert [each["what"] for each in found["not_carried"]] == ["PostUp"]
    written = run("export", "./office.conf", "--to", "openwrt", "-o", "x", "--json").stdout
    assert json.loads(written)["files"] == [{"name": "office.uci", "path": "x", "text": None}]
    assert PRIVATE not in written


def test_a_conf_goes_where_tunnels_are_looked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNNEL_CONFIG_PATH", f"{folder}/confs:/nowhere")
    done = run("import", "network", "--interface", "one", "--strict")
    assert done.stderr.endswith("start it with: tunnel up one\n")
    assert stat.S_IMODE((folder / "confs").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "confs" / "one.conf").stat().st_mode) == 0o600
    monkeypatch.setenv("TUNNEL_CONFIG_PATH", f"{folder}/none/confs")
    done = run("import", "network", "--interface", "one", code=1)
    assert "No such file or directory; nothing was written" in done.stderr


def test_one_of_several_tunnels_is_chosen(folder: Path) -> None:
    done = run("import", "network", code=2)
    assert "it has several tunnels: one, two; choose one with --interface" in done.stderr
    done = run("import", "network", "--interface", "three", code=2)
    assert 'no WireGuard interface "three"' in done.stderr
    run("import", "network", "--interface", "one", "-o", "x.conf")
    assert config.load(folder / "x.conf").peers[0].public_key.to_base64() == PEER


def test_a_key_that_is_not_in_the_file_is_said_and_can_be_given(folder: Path) -> None:
    done = run("import", "network", "--interface", "two", code=2)
    assert "network:4: it has no private key; give the file of the key" in done.stderr
    (folder / "k").write_text(PRIVATE)
    with_key = ("--private-key-file", "k", "-o", "x.conf")
    run("import", "network", "--interface", "two", *with_key)
    assert f"PrivateKeyFile = {folder}/k\n" in (folder / "x.conf").read_text()


def test_a_conf_without_its_key_gets_the_file_of_it(folder: Path) -> None:
    (folder / "a.conf").write_text(CONF.replace(f"PrivateKey = {PRIVATE}\n", ""))
    (folder / "k").write_text(PRIVATE)
    run("import", "a.conf", "--private-key-file", "k", "-o", "x.conf")
    assert f"[Interface]\nPrivateKeyFile = {folder}/k\n" in (folder / "x.conf").read_text()
    done = run("import", "office.conf", "--private-key-file", "k", "-o", "y.conf", code=2)
    assert "the conf has a PrivateKey" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the format of this file is not known"),
        ('{"a": 1}', "looks like JSON"),
        ("\x89PNG\r\n", "is a picture"),
        (f"[wireguard]\nprivate-key={OTHER[:20]}\n[connection]\n", "a:2: PrivateKey must be 44"),
        ("[connection]\ntype=vpn\n[wireguard]\n", "a:3: this is not a WireGuard connection"),
        (f"[WireGuard]\nPrivateKey={PRIVATE}\nListenPort=99999\n", "a:3: ListenPort must be"),
        (f"[WireGuard]\nPrivateKey={PRIVATE}\n[Network]\nAddress=10.0.0.1/33\n", "a:4: Address"),
        ("[WireGuard]\nHello\n", "a:2: this line (not shown) has no '='"),
        (
            f"[WireGuard]\nPrivateKey={PRIVATE}\n" + f"[WireGuardPeer]\nPublicKey={PEER}\n" * 2,
            "a:6: PublicKey is the same as on a:4",
        ),
        ("config interface 'a\n", "a:1: a quotation mark has no other"),
        ("config interface a\nnonsense here\n", "a:2: this line (not shown) is none of UCI"),
        ("set interfaces wireguard wg0 address '10\n", "a:1: a quotation mark has no other"),
        ('/interface/wireguard/add name="x\n', "a:1: a quotation mark has no other"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(folder: Path, text: str, said: str) -> None:
    (folder / "a").write_bytes(text.encode("latin-1"))
    done = run("import", "a", "-o", "x.conf", code=2)
    assert said in done.stderr
    assert OTHER[:20] not in done.stderr
    assert not (folder / "x.conf").exists()


def test_a_name_that_no_interface_can_have_needs_another(folder: Path) -> None:
    (folder / "a").write_text(UCI.replace("'one'", "'a_name_that_is_too_long'"))
    done = run("import", "a", "--interface", "a_name_that_is_too_long", "-o", "-", code=2)
    assert "choose one with --name" in done.stderr


def test_what_is_doubtful_is_said_with_the_line_of_the_conf(folder: Path) -> None:
    both = "config wireguard_one\n\toption public_key '{}'\n\tlist allowed_ips '10.1.0.0/16'\n"
    (folder / "a").write_text(
        UCI.split("config interface 'two'")[0] + both.format(PEER) + both.format(OTHER)
    )
    done = run("import", "a", "-o", "x.conf")
    assert "warning: one.conf:11: AllowedIPs has 10.1.0.0/16" in done.stderr
    line = (folder / "x.conf").read_text().splitlines()[10]
    assert line == "PublicKey = " + OTHER


def test_a_missing_file_and_a_folder_are_refused(folder: Path) -> None:
    assert "does not exist" in run("import", "none", code=2).stderr
    assert "must be a plain file, not a folder" in run("import", str(folder), code=2).stderr


def test_hooks_that_come_with_a_conf_are_shown(folder: Path) -> None:
    done = run("import", "office.conf", "-o", "x.conf", "--json")
    assert done.stderr == "shell commands, which the tunnel runs as root:\n  PostUp = echo up\n"
    assert not run("import", "network", "--interface", "one", "-o", "-").stderr


@pytest.mark.parametrize("form", ["routeros", "vyos"])
@pytest.mark.parametrize("other", ["[Match]\nName=wg0\n[Network]\nAddress=10.0.0.1\n", "what?\n"])
def test_a_file_that_would_be_ignored_is_refused(folder: Path, form: str, other: str) -> None:
    run("export", "./office.conf", "--to", form, "-o", "first")
    (folder / "second").write_text(other)
    for files in (("first", "second"), ("second", "first")):
        done = run("import", *files, "-o", "x.conf", code=2)
        assert done.stderr == (
            f"second: this file is not of {form}, but another one is; import one at a time\n"
        )
    assert not (folder / "x.conf").exists()
