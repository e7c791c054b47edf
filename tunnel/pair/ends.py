"""An agent as the one who asks it sees it: a process, here or behind ssh, that answers by lines."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from tunnel.log.redact import printable
from tunnel.pair.messages import (
    MAX_LINE,
    PROTOCOL,
    Hello,
    PairError,
    line_of,
    message_untrusted,
    object_untrusted,
)

START_TIME = 60.0
"""Seconds for an agent to say hello: it may be a slow machine."""

_ANSWER_TIME = 60.0

_USAGE = 2
"""The exit status of a program that does not know its command line."""

_NOISE = 200
"""Lines that a login may print before the agent is heard."""


class EndLostError(PairError):
    """The agent does not answer any more."""


class WrongProgramError(PairError):
    """What was started is no agent."""


class PairEnd:
    """The agent that `command` starts. `name` is what messages call its host."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.is_lost = False
        self.partner: PairEnd | None = None
        """Another one, without which nothing that this one could answer matters."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._buffer = bytearray()
        self._last_id = 0
        # Not in our process group: ^C is for us, and the agent learns by us what follows from it.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            process_group=0,
        )

    def hello(self) -> Hello:
        """Who is there. Raises PairError, WrongProgramError if that is no agent."""
        deadline = time.monotonic() + START_TIME
        for _ in range(_NOISE):
            line = self._line(deadline)
            if line.startswith(b'{"tunnel"'):
                found = message_untrusted(Hello, object_untrusted(line))
                break
        else:
            raise WrongProgramError(f"{self.name}: no agent answers")
        if found.protocol != PROTOCOL:
            raise PairError(
                f"{self.name}: tunnel {printable(found.tunnel)} speaks version {found.protocol} of "
                f"the protocol, and {PROTOCOL} is needed; install the same version on both"
            )
        return found

    def ask(self, method: str, *, patience: float = _ANSWER_TIME, **params: Any) -> Any:
        """Ask for something; the answer within `patience` seconds.

        Raises PairError for a refusal, EndLostError if none comes.
        """
        if self.is_lost:
            raise EndLostError(f"{self.name}: the connection is lost")
        assert self._process.stdin is not None
        try:
            self._last_id += 1
            self._process.stdin.write(line_of({"id": self._last_id, "do": method, **params}))
        except OSError:
            raise self._lost() from None
        deadline = time.monotonic() + patience
        answer: dict[str, Any] = {}
        # The answer to one that ^C came between is not the one to this.
        while answer.get("id") != self._last_id:
            answer = object_untrusted(self._line(deadline))
        if "error" in answer:
            raise PairError(f"{self.name}: {printable(str(answer['error']))}")
        return answer.get("result")

    def fileno(self) -> int:
        """The descriptor that its answers come by."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def close(self) -> None:
        """Let the agent go, which then undoes what is not committed, and wait for its end."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            self._process.wait(5.0 if self.is_lost else _ANSWER_TIME)
        except subprocess.TimeoutExpired:
            # Of ours this is ssh, or sudo; the agent behind it hears that they are gone.
            self._process.terminate()
            self._process.wait()
        self._errors.close()

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._buffer:
            waited = [self]
            if self.partner is not None and not self.partner.is_lost:
                waited.append(self.partner)
            left = deadline - time.monotonic()
            # Also if it talks on and on, and never answers.
            heard = select.select(waited, [], [], left)[0] if left > 0 else []
            if not heard:
                self.is_lost = True
                raise EndLostError(f"{self.name}: no answer")
            if self not in heard:
                # It was asked for nothing: this is its end.
                raise waited[1]._lost()
            data = os.read(self.fileno(), 65536)
            if not data or len(self._buffer) > MAX_LINE:
                raise self._lost()
            self._buffer += data
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = rest
        return bytes(line)

    def _lost(self) -> PairError:
        self.is_lost = True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2.0)
        self._errors.seek(0)
        text = self._errors.read(1 << 16).decode(errors="replace")
        said = [printable(line.strip()) for line in text.splitlines() if line.strip()]
        kind = WrongProgramError if self._process.returncode == _USAGE else EndLostError
        return kind(f"{self.name}: {_reason(said)}")


def _reason(said: Sequence[str]) -> str:
    """Why an agent has ended, from the last that it, sudo or ssh printed."""
    words = said[-1] if said else "the connection is lost"
    if "password is required" in words or "a terminal is required" in words:
        words = (
            "sudo asks for a password there, which cannot be given; log in as root, or let "
            "/etc/sudoers there permit it without (NOPASSWD)"
        )
    return words
