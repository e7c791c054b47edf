"""Fuzz for long, each target in its turn, led by the code that an input reaches (atheris).

    python -m tests.support.fuzz --seconds 600 --targets confs uapi

Without atheris, which has no wheel for every Python, inputs are made of the corpus by chance. What
is found is written to a file, whose name is printed; as a file of the corpus it is a test. New
inputs that reach more are kept in --found for the next run, the corpus itself stays as it is.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from types import ModuleType

SECONDS = 20
ROUNDS = 5_000
"""Inputs between two looks at the clock."""


def main() -> int:
    """Run each target in a process of its own; how many have found something."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each target")
    parser.add_argument("--targets", nargs="*", help="all, if none is named")
    parser.add_argument("--found", type=Path, default=Path(tempfile.gettempdir(), "tunnel-fuzz"))
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.found.mkdir(parents=True, exist_ok=True)
    if options.one:
        name, *modules = options.one
        return run(name, modules, options.seconds, options.found)
    from tests.support.fuzz.registry import TARGETS

    failed = []
    for number, name in enumerate(options.targets or TARGETS, start=1):
        print(f"== {name} ({number} of {len(options.targets or TARGETS)})", flush=True)
        one = ("--one", name, *TARGETS[name].reads)
        how = ("--seconds", str(options.seconds), "--found", str(options.found))
        command = [sys.executable, "-m", "tests.support.fuzz", *one, *how]
        done = subprocess.run(command, check=False)
        if done.returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "nothing found", flush=True)
    return len(failed)


def run(name: str, modules: list[str], seconds: float, found: Path) -> int:
    """Try one target, which reads with these modules."""
    logging.getLogger("tunnel").setLevel(logging.CRITICAL)
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        return run_by_chance(name, seconds, found)
    return run_led(atheris, name, modules, seconds, found)


def run_led(atheris: ModuleType, name: str, modules: list[str], seconds: float, found: Path) -> int:
    """By libFuzzer, with those modules instrumented. It ends the process."""
    with atheris.instrument_imports(include=modules):
        from tests.support.fuzz.registry import TARGETS
        from tests.support.fuzz.target import MAX_INPUT, check

        target = TARGETS[name]
    words = found / f"{name}.dict"
    words.write_text(
        "".join('"' + "".join(f"\\x{b:02x}" for b in word[:64]) + '"\n' for word in target.words)
    )
    more = found / name
    more.mkdir(exist_ok=True)
    flags = (
        f"-max_total_time={seconds:.0f}", f"-max_len={MAX_INPUT}", f"-dict={words}", "-timeout=20",
        "-rss_limit_mb=1024", f"-artifact_prefix={found / name}-", "-print_final_stats=1",
    )  # fmt: skip

    def one_input(data: bytes) -> None:
        # What is instrumented makes calls of its own; libFuzzer has a limit of time.
        check(target, data, counted=False)

    atheris.Setup([name, *flags, str(more), str(target.folder)], one_input)
    atheris.Fuzz()
    return 0


def run_by_chance(name: str, seconds: float, found: Path) -> int:
    """By inputs made of the corpus."""
    from tests.support.fuzz.mutation import mutated
    from tests.support.fuzz.registry import TARGETS
    from tests.support.fuzz.target import check

    target = TARGETS[name]
    corpus = list(target.corpus().values())
    random = Random(os.urandom(16))
    began, tried = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        data = mutated(random, corpus, target.words)
        tried += 1
        try:
            check(target, data)
        except BaseException:
            place = found / f"{name}-{tried}"
            place.write_bytes(data)
            print(f"after {tried} inputs, this one: {place}", flush=True)
            raise
        if tried % ROUNDS == 0:
            print(f"{tried} inputs, {tried / (time.monotonic() - began):.0f} a second", flush=True)
    print(f"{tried} inputs", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
