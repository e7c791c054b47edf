"""The program: python -m tests.conformance, or python -m conformance in the folder tests."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import trio

from tunnel.lab import Lab, LabError

from . import cases as cases
from .case import CASES, QUICK, Case, Result, Verdict
from .judge import Judge
from .program import Program
from .report import Judged, markdown, progress, table, to_json
from .subject import SubjectError

EPILOG = """\
PROGRAM has wireguard-go's command line: PROGRAM -f NAME makes the interface
NAME and the socket /var/run/wireguard/NAME.sock. Several are judged at the same
time. Needs root. Exit status: 0 if all rules were kept, 1 if one was broken,
2 if a program could not be run.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    options = _parser().parse_args(arguments)
    chosen = choose(options.case or ["*"])
    if not chosen:
        print(f"no case matches {', '.join(options.case)}; --list shows them", file=sys.stderr)
        return 2
    if options.list:
        for case in chosen:
            print(f"{case.id:<34} {case.seconds:5.0f} s\n    {case.rule}")
        return 0
    if not options.program:
        print("name a program to judge, as in --program wireguard-go", file=sys.stderr)
        return 2
    try:
        with Lab() as lab:
            programs = [Program(lab.host(f"p{n}"), name) for n, name in enumerate(options.program)]
            judged = trio.run(judge_all, programs, chosen, options.quick)
    except (SubjectError, LabError) as error:
        print(error, file=sys.stderr)
        return 2
    for each in judged:
        print(table(each), end="\n\n")
    if options.json:
        options.json.write_text(to_json(judged), encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(markdown(judged, chosen), encoding="utf-8")
    return int(any(each.failed for each in judged))


def choose(patterns: Sequence[str]) -> list[Case]:
    """The cases whose IDs match one of the patterns of the shell."""
    return [case for case in CASES.values() if any(fnmatch(case.id, p) for p in patterns)]


async def judge_all(
    programs: Sequence[Program], chosen: Sequence[Case], quick: bool
) -> list[Judged]:
    """Judge all programs at the same time; with `quick` the slow cases are skipped."""
    asked = [case for case in chosen if case.quick or not quick]
    skipped = [
        Result(case, Verdict.SKIPPED, f"takes {case.seconds:g} s")
        for case in chosen
        if case not in asked
    ]
    judged: dict[Program, Judged] = {}
    done = 0

    async def judge(program: Program) -> None:
        def report(result: Result) -> None:
            nonlocal done
            done += 1
            line = progress(done, len(asked) * len(programs), program.name, result)
            print(line, file=sys.stderr, flush=True)

        found = await Judge(program.make_subject, report).run(asked)
        by_id = {result.case.id: result for result in [*found, *skipped]}
        results = [by_id[case.id] for case in chosen]
        judged[program] = Judged(program.name, program.version(), results)

    async with trio.open_nursery() as nursery:
        for program in programs:
            nursery.start_soon(judge, program)
    return [judged[program] for program in programs]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="conformance",
        description="Judge WireGuard programs by the rules of the whitepaper and of Linux.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--program", action="append", metavar="PROGRAM", help="what to judge; may be repeated"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"only cases that take less than {QUICK:g} s"
    )
    parser.add_argument(
        "--case", action="append", metavar="PATTERN", help="only these, such as 'silence-*'"
    )
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
