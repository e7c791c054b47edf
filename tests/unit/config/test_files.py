"""Confs and keys in files: what cannot be read, who else can, and where a name is looked up."""

import contextlib
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.confs import INTERFACE, PEER, PRIVATE, PSK, WITH_PEER
from tunnel.config import ConfigErrors, PrivateKey, files, find, load, place_of, save
from tunnel.config.problems import quote


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "office.conf"
    path.write_text(INTERFACE)
    path.chmod(0o600)
    return path


def error_of(path: str | Path) -> str:
    with pytest.raises(ConfigErrors) as caught:
        load(path)
    return str(caught.value)


def test_load_takes_the_name_from_the_file(conf: Path) -> None:
    config = load(conf)
    assert (config.name, config.path, config.warnings) == ("office", conf, ())


def test_files_that_are_no_conf(tmp_path: Path) -> None:
    missing = tmp_path / "a.conf"
    assert error_of(missing) == (
        f"{missing}: the file does not exist; check the name, or create the file"
    )
    folder = tmp_path / "b.conf"
    folder.mkdir()
    assert error_of(folder) == (
        f"{folder}: the file must be a plain file, not a folder; name a plain file"
    )
    pipe = tmp_path / "c.conf"
    os.mkfifo(pipe)
    assert error_of(pipe) == (
        f"{pipe}: the file must be a plain file, not a device, pipe or socket; name a plain file"
    )
    loop = tmp_path / "d.conf"
    loop.symlink_to(loop)
    assert error_of(loop) == (
        f"{loop}: the file is in a circle of symbolic links; name the file itself"
    )
    long = tmp_path / "far-too-long-name.conf"
    assert error_of(long) == (
        f'{long}: the name of an interface has at most 15 characters, and "far-too-long-name" has '
        "17; give the conf a shorter name, as in office.conf"
    )


def test_files_that_have_no_name_of_a_conf(tmp_path: Path) -> None:
    """What is advised does no harm to a file that is none."""
    path = tmp_path / "private.key"
    assert error_of(path) == (
        f"{path}: the file does not exist; check the name, or create the file"
    )
    path.write_text(f"{PRIVATE}\n")
    assert error_of(path) == (
        f"{path}: the file looks like a bare key, not a conf for WireGuard; "
        "name the conf that the key is for"
    )
    path.write_text(INTERFACE)
    assert error_of(path) == (
        f"{path}: the file's name must end in .conf; if it is a conf, copy it to INTERFACE.conf"
    )
    assert error_of(tmp_path) == (
        f"{tmp_path}: the file must be a plain file, not a folder; name a conf in it"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", '"": no conf is named; name one, as office or ./office.conf'),
        (".", ".: this is a folder, not a conf; "),
        ("far-too-long-name", "the name of an interface has at most 15 characters"),
    ],
)
def test_names_that_are_none(name: str, message: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        find(name, ["/nowhere"])
    assert message in str(caught.value)


def test_path_without_its_ending(conf: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"did you mean .*/office\.conf\?"):
        find(conf.with_suffix(""), [])


@contextlib.contextmanager
def as_somebody() -> Iterator[None]:
    """Be an ordinary user for a while, if we are root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.real_root
def test_files_we_may_not_read_or_see(conf: Path) -> None:
    conf.chmod(0)
    with as_somebody():
        assert error_of(conf) == (
            f"{conf}: the file cannot be read by this user; "
            "run the command as root, or as the owner of the file"
        )
    conf.parent.chmod(0)
    try:
        with as_somebody(), pytest.raises(ConfigErrors) as caught:
            find("office", ["/nowhere", conf.parent])
    finally:
        conf.parent.chmod(0o700)
    assert str(caught.value) == (
        f"office: no permission to look for {conf}; run the command as root"
    )


@pytest.mark.real_root
def test_root_of_a_container_may_not_read_what_is_another_user_s(conf: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(conf, 65534, 65534)
    program = (
        "import sys; from tunnel import config; from tunnel.linux.rights import give_up_all_but\n"
        "give_up_all_but(())\n"
        "try: config.load(sys.argv[1])\n"
        "except config.ConfigErrors as errors: print(errors)"
    )
    command = [sys.executable, "-c", program, str(conf)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "not even by root" in said
    assert "where root lacks CAP_DAC_OVERRIDE, as in some containers, make root its owner" in said


def test_a_file_that_is_too_large(conf: Path) -> None:
    os.truncate(conf, files.CONF_LIMIT + 1)
    assert error_of(conf) == (
        f"{conf}: the file is larger than 67,108,864 bytes; "
        "check the name: this must be some other file"
    )


def test_bytes_that_are_no_utf8(conf: Path) -> None:
    conf.write_bytes(INTERFACE.encode() + b"MTU = 14\xe90\n")
    assert error_of(conf) == (
        f"{conf}:3: byte 0xe9 of this line is not valid UTF-8; "
        "save the file as UTF-8 in your editor, or convert it with iconv"
    )


def test_comments_and_hooks_may_be_in_any_encoding(conf: Path) -> None:
    """As for wg-quick. A save leaves their bytes as they are."""
    data = INTERFACE.encode() + (
        b"MTU = 1400 # caf\xe9\nPostUp = echo caf\xe9\n"
        b"[Peer]\n# friendly_name = B\xfcro\nPublicKey = " + PEER.encode() + b"\n# B\xfcro"
    )
    conf.write_bytes(data)
    config = load(conf)
    assert config.warnings == ()
    assert [os.fsencode(hook) for hook in config.interface.post_up] == [b"echo caf\xe9"]
    assert config.peers[0].friendly_name == "B\N{REPLACEMENT CHARACTER}ro"
    save(conf, replace(config, interface=replace(config.interface, mtu=1300)))
    assert conf.read_bytes() == data.replace(b"1400", b"1300")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("[Interface]\n".encode("utf-16"), "UTF-16 text"),
        (b"PK\x03\x04\x14", "a ZIP archive"),
        (b"\x89PNG\r\n", "a picture"),
        (b"\x1f\x8b\x08", "compressed by gzip"),
    ],
)
def test_files_that_hold_no_text(conf: Path, data: bytes, name: str) -> None:
    conf.write_bytes(data)
    assert f"{conf}: the file is {name}, not a conf; " in error_of(conf)


def test_others_may_read_the_secrets(conf: Path) -> None:
    conf.chmod(0o644)
    conf.parent.chmod(0o755)
    assert [str(warning) for warning in load(conf).warnings] == [
        f"{conf}: every user may open this file, which holds secrets: only its owner should; "
        f"run chmod 600 {conf}"
    ]
    conf.parent.chmod(0o700)
    assert load(conf).warnings == ()


def test_a_conf_whose_secrets_are_elsewhere_may_be_shared(conf: Path) -> None:
    (conf.parent / "key").write_text(PRIVATE + "\n")
    (conf.parent / "key").chmod(0o600)
    conf.write_text("[Interface]\nPrivateKeyFile = key\n")
    conf.chmod(0o644)
    conf.parent.chmod(0o755)
    config = load(conf)
    assert config.warnings == ()
    assert config.interface.private_key == PrivateKey.from_base64(PRIVATE)
    assert config.interface.private_key_file == "key"


def test_others_may_write(conf: Path) -> None:
    conf.chmod(0o606)
    conf.parent.chmod(0o703)
    assert [str(warning) for warning in load(conf).warnings] == [
        f"{conf}: every user may change this file: only its owner should; run chmod 600 {conf}"
    ]


def test_key_files_beside_the_conf(conf: Path) -> None:
    folder = conf.parent
    folder.chmod(0o755)
    for name, key in (("own.key", PRIVATE), ("peer.psk", PSK)):
        (folder / name).write_text(key + "\n")
        (folder / name).chmod(0o644)
    conf.write_text(
        WITH_PEER.replace(f"PrivateKey = {PRIVATE}", "PrivateKeyFile = own.key")
        + f"PresharedKeyFile = {folder}/peer.psk\n"
    )
    config = load(conf)
    assert config.interface.private_key == PrivateKey.from_base64(PRIVATE)
    psk = config.peers[0].preshared_key
    assert psk is not None
    assert psk.to_base64() == PSK
    assert [str(warning) for warning in config.warnings] == [
        f'{conf}:2: PrivateKeyFile: every user may open "own.key", which holds a secret; '
        f"run chmod 600 {folder}/own.key",
        # A long name is cut, but not where it is part of a command.
        f"{conf}:5: PresharedKeyFile: every user may open {quote(f'{folder}/peer.psk')}, which "
        f"holds a secret; run chmod 600 {folder}/peer.psk",
    ]


def test_key_files_with_something_else_in_them(conf: Path) -> None:
    (conf.parent / "k").write_bytes(b"\xff\0" + PRIVATE.encode())
    conf.write_text("[Interface]\nPrivateKeyFile = k\n")
    assert error_of(conf) == (
        f'{conf}:2: PrivateKeyFile: the key in "k" must be 44 characters of base64 ending in '
        "'=', not 46 characters (not shown); paste the key that `tunnel genkey` printed"
    )
    conf.write_text("[Interface]\nPrivateKeyFile = none\n")
    assert error_of(conf) == (
        f'{conf}:2: PrivateKeyFile: the file "none" does not exist; '
        "check the name, or create the file"
    )
    conf.write_text("[Interface]\nPrivateKeyFile = /dev/zero\n")
    assert error_of(conf) == (
        f'{conf}:2: PrivateKeyFile: the file "/dev/zero" must be a plain file, '
        "not a device, pipe or socket; name a plain file"
    )
    conf.write_text("[Interface]\nPrivateKeyFile =\n")
    assert error_of(conf) == (
        f"{conf}:2: PrivateKeyFile is empty: it must be the name of a file; "
        "write it relative to the folder of this conf, or in full"
    )


def test_a_key_and_a_key_file(conf: Path) -> None:
    conf.write_text(f"{INTERFACE}PrivateKeyFile = k\n")
    assert error_of(conf) == (
        f"{conf}:3: PrivateKeyFile is set, and so is PrivateKey on line 2: only one of them may "
        "be; "
        "remove PrivateKey to have the key in the file"
    )


def test_names_are_looked_up_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    (second / "office.conf").write_text("")
    assert find("office", [first, second]) == second / "office.conf"
    assert find("office.conf", [first, second]) == second / "office.conf"
    (first / "office.conf").write_text("")
    assert find("office", [first, second]) == first / "office.conf"
    assert find(str(second / "office.conf"), [first]) == second / "office.conf"


def test_the_environment_names_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "office.conf").write_text("")
    monkeypatch.setenv("TUNNEL_CONFIG_PATH", f"/nowhere:{tmp_path}")
    assert find("office") == tmp_path / "office.conf"


def test_a_file_here_is_meant_only_by_its_full_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "peer.conf").write_text("")
    monkeypatch.chdir(tmp_path)
    assert find("peer.conf", ["/nowhere"]) == Path("peer.conf")
    with pytest.raises(ConfigErrors) as caught:
        find("peer", ["/nowhere", "/elsewhere"])
    assert str(caught.value) == (
        "peer: there is no /nowhere/peer.conf or /elsewhere/peer.conf; "
        "check the spelling, or give the path with a slash, as ./peer.conf"
    )


def test_a_path_that_is_not_there_needs_no_slash() -> None:
    with pytest.raises(ConfigErrors) as caught:
        find("/nowhere/peer.conf", [])
    assert str(caught.value) == (
        "/nowhere/peer.conf: there is no /nowhere/peer.conf; check the path"
    )


def test_a_name_that_cannot_be_one() -> None:
    with pytest.raises(ConfigErrors, match=r'1 to 15 letters.*, not "a b"'):
        find("a b", [])


def test_reading_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    conf = tmp_path / "wg0.conf"
    conf.write_bytes(b"x" * 100)
    tracemalloc.start()
    try:
        data, _ = files.read(conf, limit=files.CONF_LIMIT)
        assert tracemalloc.get_traced_memory()[1] < files.CONF_LIMIT / 16
    finally:
        tracemalloc.stop()
    assert data == b"x" * 100
    conf.write_bytes(b"y" * 5_000_000)
    assert files.read(conf, limit=5_000_000).data == b"y" * 5_000_000


def test_the_place_of_a_key_is_the_line_that_counts(conf: Path) -> None:
    conf.write_text(f"{INTERFACE}listenport = 1\n# ListenPort = 2\nListenPort = 3\n")
    config = load(conf)
    assert place_of(config, "ListenPort") == f"{conf}:5"
    assert place_of(config, "MTU") == str(conf)
    conf.unlink()
    assert place_of(config, "ListenPort") == str(conf)
    assert place_of(replace(config, path=None), "ListenPort") == ""
