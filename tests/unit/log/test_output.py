"""Lines of the log: one per event, safe to print, in the form that fits their reader."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.log import output
from tunnel.log.output import HumanFormatter, JournalFormatter, JsonFormatter, LineFormatter

FORMATTERS: list[LineFormatter] = [
    HumanFormatter(),
    JournalFormatter(),
    JsonFormatter(),
    JsonFormatter(for_journal=True),
]
HOSTILE = "a\nb\r<0>c\x1b[2Jd\x00e\x7ff\x9bg\u202eh\u2028i\ud800j\tk"
SECRET_BASE64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.fixture(autouse=True)
def _unchanged_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test may set up logging; none keeps it."""
    root, ours = logging.getLogger(), logging.getLogger("tunnel")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    raising = logging.raiseExceptions
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers = handlers
    logging.raiseExceptions = raising
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def record(text: str, *args: object, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("tunnel", level, __file__, 1, text, args, None)


def is_one_safe_line(line: str) -> bool:
    return line.isprintable()


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_hostile_text_stays_one_line(formatter: LineFormatter) -> None:
    line = formatter.format(record("peer %s", HOSTILE))
    assert is_one_safe_line(line)
    line.encode()  # no lone surrogate is left


@given(st.text(), st.text())
def test_any_text_stays_one_line(text: str, argument: str) -> None:
    for formatter in FORMATTERS:
        assert is_one_safe_line(formatter.format(record("%s: %s", text, argument)))
        assert is_one_safe_line(formatter.format(record(text, argument)))
        formatter.format(record(text)).encode()


def test_human_line_has_local_time_and_level(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    made = record("up", level=logging.WARNING)
    made.created = 1_700_000_000.5
    try:
        assert HumanFormatter().format(made) == "2023-11-15 00:13:20 warning: up"
        coloured = HumanFormatter(colours=True).format(made)
        assert coloured == "2023-11-15 00:13:20 \x1b[33mwarning\x1b[0m: up"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("level", "number"),
    [
        (logging.DEBUG, 7),
        (logging.INFO, 6),
        (logging.WARNING, 4),
        (logging.ERROR, 3),
        (logging.CRITICAL, 3),
    ],
)
def test_journal_line_has_the_priority(level: int, number: int) -> None:
    assert JournalFormatter().format(record("<0>up", level=level)) == f"<{number}><0>up"


def test_json_line_is_an_object_with_the_exact_text() -> None:
    made = record("peer %s", "\x1b\n")
    made.created = 5.25
    line = JsonFormatter().format(made)
    assert json.loads(line) == {"time": 5.25, "level": "info", "text": "peer \x1b\n"}
    assert JsonFormatter(for_journal=True).format(made) == "<6>" + line


def with_traceback() -> logging.LogRecord:
    try:
        raise RuntimeError(f"evil \x1b[2J\nPrivateKey = {SECRET_BASE64}")
    except RuntimeError:
        return logging.LogRecord("tunnel", 40, __file__, 1, "broke", (), sys.exc_info())


def test_tracebacks_are_safe_too() -> None:
    human = HumanFormatter().format(with_traceback()).split("\n")
    assert human[0].endswith("error: broke")
    assert all(line.startswith("    ") and line.isprintable() for line in human[1:])
    journal = JournalFormatter().format(with_traceback())
    assert journal.startswith("<3>broke | Traceback")
    assert is_one_safe_line(journal)
    document = json.loads(JsonFormatter().format(with_traceback()))
    assert document["traceback"][0].startswith("Traceback")
    for text in ("\n".join(human), journal, json.dumps(document)):
        assert SECRET_BASE64 not in text


def test_a_long_line_is_cut_and_says_so() -> None:
    line = HumanFormatter().format(record("%s", "x" * 100_000))
    assert len(line) < output.MAX_TEXT + 100
    assert line.endswith(f"… ({100_000 - output.MAX_TEXT} characters more)")


def test_a_line_that_does_not_fit_its_arguments_is_logged_all_the_same() -> None:
    assert HumanFormatter().format(record("%d peers", "many")).endswith("info: %d peers")


def test_stream_form_follows_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stream"
    log = logging.getLogger("tunnel.test")
    with path.open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        output.log_to_stream(stream)
        log.info("one")
        log.debug("unseen")
        logging.getLogger("pyroute2").info("unseen")
        logging.getLogger("pyroute2").warning("seen")
        output.log_to_stream(stream, as_json=True, verbose=True)
        log.debug("two")
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        output.log_to_stream(stream)
        log.warning("three")
    lines = path.read_text().splitlines()
    assert lines[:2] == ["<6>one", "<4>seen"]
    assert lines[2].startswith('<7>{"time": ')
    assert lines[3].endswith(" warning: three")
    assert len(lines) == 4


def test_a_stream_without_a_descriptor_is_no_journal() -> None:
    assert not output.goes_to_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


def test_the_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "LOG_BYTES", 2000)
    path = tmp_path / "wg0.log"
    output.log_to_file(path)
    for number in range(200):
        logging.getLogger("tunnel").info("line %d \x1b", number)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["wg0.log", "wg0.log.1"]
    assert all(file.stat().st_size <= 2000 for file in tmp_path.iterdir())
    assert path.read_text().splitlines()[-1].endswith("info: line 199 \\x1b")


def test_the_file_is_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "LOG_BYTES", 2000)
    path = tmp_path / "wg0.log"
    path.touch(0o644)
    before = os.umask(0)
    try:
        output.log_to_file(path)
        for number in range(200):
            logging.getLogger("tunnel").info("line %d", number)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    assert len(list(tmp_path.iterdir())) == 2


def test_stderr_follows_the_file(tmp_path: Path) -> None:
    """A traceback of Python's own is in the log also after it was replaced twice."""
    path = tmp_path / "wg0.log"
    program = (
        "import logging, pathlib, sys; from tunnel.log import output; output.LOG_BYTES = 500\n"
        "output.log_to_file(pathlib.Path(sys.argv[1]), with_stderr=True)\n"
        "for n in range(100): logging.getLogger('tunnel').info('line %d', n)\n"
        "raise RuntimeError('a defect')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "RuntimeError: a defect" in path.read_text()


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "wg0.log", tmp_path / "other"
    other.touch()
    if kind == "link":
        path.symlink_to(other)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError, match=r"levels of symbolic|No such device|s a directory"):
        output.log_to_file(path)
    assert other.read_text() == ""


def test_a_full_disk_costs_lines_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    full = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115
    logging.getLogger().addHandler(logging.StreamHandler(full))
    logging.getLogger("tunnel").warning("not written")
    with pytest.raises(OSError, match="No space left"):
        full.flush()
    output.flush()
    logging.getLogger().handlers.clear()
    with contextlib.suppress(OSError):
        full.close()
