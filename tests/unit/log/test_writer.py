"""A log whose reader is slow, stuck or gone: nobody waits, and what is lost is counted."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from tunnel.log import output, writer

log = logging.getLogger("tunnel.test")

BOUND = 30.0


class Reader:
    """The reading end of a small pipe that the log goes to."""

    def __init__(self) -> None:
        self._fd, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)
        self._rest = b""

    def fill(self) -> int:
        """Write until nothing more fits; the bytes to read before anything else comes."""
        os.set_blocking(self.writing, False)
        written = 0
        try:
            while True:
                written += os.write(self.writing, b"." * 512)
        except BlockingIOError:
            os.set_blocking(self.writing, True)
            return written

    def read(self, size: int) -> None:
        """Take `size` bytes, whatever they are."""
        while size:
            size -= len(os.read(self._fd, size))

    def line(self) -> str:
        """The next line's text, without time and level."""
        while b"\n" not in self._rest:
            chunk = os.read(self._fd, 4096)
            assert chunk, "the end of the log"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode().split(": ", 1)[1]

    def close(self) -> None:
        os.close(self._fd)
        self._fd = -1


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """The log goes to it until the end of the test."""
    root, ours = logging.getLogger(), logging.getLogger("tunnel")
    handlers, levels, raising = root.handlers[:], (root.level, ours.level), logging.raiseExceptions
    root.handlers = []
    made = Reader()
    stream = os.fdopen(made.writing, "w")
    output.log_to_stream(stream)
    yield made
    if made._fd >= 0:
        made.close()  # whoever still writes hears of it
    for handler in root.handlers:
        handler.close()
    root.handlers, logging.raiseExceptions = handlers, raising
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    stream.close()


def in_time(work: Callable[[], None]) -> None:
    """Do it in a thread, so that a test that waits for ever fails."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(BOUND)
    assert not thread.is_alive(), "it waits for the reader"


def test_nobody_waits_and_what_is_lost_is_counted(reader: Reader) -> None:
    total = 20_000
    text = "x" * 60

    def write() -> None:
        for number in range(total):
            log.info("%d %s", number, text)

    in_time(write)
    for number in range(total):
        line = reader.line()
        if not line.endswith(text):
            break
        assert line == f"{number} {text}"
    assert 1000 < number < total
    assert line == f"the reader of the log was too slow: {total - number} lines are lost"
    log.info("all is well")
    assert reader.line() == "all is well"


def test_one_long_line_gets_through(reader: Reader) -> None:
    text = "y" * output.MAX_TEXT
    in_time(lambda: log.info("%s", text))
    assert reader.line() == text


def test_reader_that_is_gone_costs_lines_only(reader: Reader) -> None:
    reader.close()

    def write() -> None:
        for _ in range(10):
            log.info("nobody hears this")
        output.flush()

    in_time(write)


def test_descriptor_that_does_not_block_is_waited_for(reader: Reader) -> None:
    """Programs that share a terminal with us may have set it so."""
    filled = reader.fill()
    os.set_blocking(reader.writing, False)
    log.info("in the end")
    reader.read(filled)
    assert reader.line() == "in the end"


def test_flush_gives_up_on_a_reader_that_takes_nothing(reader: Reader) -> None:
    reader.fill()
    in_time(lambda: log.info("stuck"))
    in_time(output.flush)


def test_flush_gives_up_on_a_reader_that_is_slow(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it did not get in time is counted as lost, and the next line comes after that."""
    monkeypatch.setattr(writer, "FLUSH_TIME", 0.2)
    monkeypatch.setattr(writer, "PATIENCE", BOUND)
    total, text = 2000, "x" * 60
    hurry = threading.Event()
    lines: list[str] = []

    def read() -> None:
        while not lines or lines[-1] != "all is well":
            lines.append(reader.line())
            hurry.wait(2 * BOUND / total)

    for _ in range(total):
        log.info("%s", text)
    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    in_time(output.flush)
    log.info("all is well")
    hurry.set()
    in_time(reading.join)
    loss = f"the reader of the log was too slow: {total - len(lines) + 2} lines are lost"
    assert lines[-2:] == [loss, "all is well"]
    assert set(lines[:-2]) == {text}


PROGRAM = """
import logging, os, sys
from tunnel.log import output
output.log_to_stream()
log = logging.getLogger("tunnel")
for number in range(100):
    log.info("line %d", number)
"""


def run(program: str, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM + program],
        stderr=stderr,
        text=True,
        check=False,
        timeout=2 * BOUND,
    )


@pytest.mark.parametrize(
    ("end", "status"), [("", 0), ("sys.exit(3)", 3), ("raise RuntimeError('broke')", 1)]
)
def test_every_line_is_out_at_the_end(end: str, status: int) -> None:
    done = run(end)
    assert done.returncode == status
    # Python writes a traceback in pieces, between which lines may come.
    assert re.findall(r" info: line (\d+)$", done.stderr, re.M) == [str(n) for n in range(100)]
    assert ("RuntimeError" in done.stderr) is (status == 1)


def test_the_end_does_not_wait_for_a_stuck_reader(reader: Reader) -> None:
    reader.fill()
    assert run("", stderr=reader.writing).returncode == 0


FORK = """
child = os.fork()
log.info("of %s", "parent" if child else "child")
if child:
    assert os.waitpid(child, 0)[1] == 0
else:
    log.info("more of child")
"""


def test_after_a_fork_both_log_and_no_line_comes_twice() -> None:
    done = run(FORK)
    assert done.returncode == 0, done.stderr
    lines = [line.split(": ")[1] for line in done.stderr.splitlines()]
    assert lines[:100] == [f"line {number}" for number in range(100)]
    assert sorted(lines[100:]) == ["more of child", "of child", "of parent"]


def test_fork_does_not_wait_for_a_stuck_reader(reader: Reader) -> None:
    reader.fill()
    assert run(FORK, stderr=reader.writing).returncode == 0
