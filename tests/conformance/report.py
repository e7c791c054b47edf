"""Results as lines while they come, a table of 80 columns, JSON and Markdown."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .case import Case, Result, Verdict

WIDTH = 80
_SHORT = {Verdict.NOT_APPLICABLE: "n/a", Verdict.SKIPPED: "-"}


@dataclass(frozen=True)
class Judged:
    """All results of one program."""

    name: str
    version: str
    results: Sequence[Result]

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}".strip()

    def count(self) -> str:
        """How many of each verdict."""
        counts = Counter(result.verdict for result in self.results)
        return ", ".join(f"{counts[v]} {v.value}" for v in Verdict if counts[v])

    @property
    def failed(self) -> bool:
        return any(result.verdict is Verdict.FAIL for result in self.results)


def progress(done: int, total: int, name: str, result: Result) -> str:
    """A line for a result that has just come."""
    verdict = _SHORT.get(result.verdict, result.verdict.value)
    line = f"[{done}/{total}] {name}: {result.case.id}: {verdict}, {result.seconds:.1f} s"
    return line[:WIDTH]


def table(judged: Judged) -> str:
    """The results of a program, with the evidence below each one that is no pass."""
    lines = [judged.title, ""]
    for result in judged.results:
        verdict = _SHORT.get(result.verdict, result.verdict.value)
        time = f"{result.seconds:7.1f} s" if result.seconds else ""
        lines.append(f"{result.case.id:<34} {verdict:<8} {time}")
        if result.verdict is Verdict.FAIL:
            lines += _indented(f"rule: {result.case.rule} ({result.case.source})")
            lines += _indented(f"found: {result.evidence}")
        elif result.verdict is Verdict.NOT_APPLICABLE:
            lines += _indented(result.evidence)
    return "\n".join([*lines, "", judged.count()])


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="      ")


def to_json(all_judged: Sequence[Judged]) -> str:
    """Everything, for programs."""
    found = [
        {
            "program": judged.name,
            "version": judged.version,
            "results": [
                {
                    "case": result.case.id,
                    "rule": result.case.rule,
                    "source": result.case.source,
                    "sends": result.case.sends,
                    "expects": result.case.expects,
                    "verdict": result.verdict.value,
                    "evidence": result.evidence,
                    "seconds": round(result.seconds, 3),
                }
                for result in judged.results
            ],
        }
        for judged in all_judged
    ]
    return json.dumps(found, indent=2) + "\n"


_HEAD = """\
# Conformance

What `make conformance` finds. A hostile peer, which has its own implementation of the protocol,
tests each program by the rules of the WireGuard whitepaper and of the Linux kernel, through its
UAPI and by real datagrams. The program writes this page (`--markdown`). Where a rule looked broken,
the case ran twice, and the better verdict counts. The last table says what each rule is, what was
sent and what was expected.

A fail is a difference from the whitepaper or from Linux, not always a defect: an implementation may
have left out deliberately what only Linux does. The column *source* says where a rule stands.
"""


def markdown(all_judged: Sequence[Judged], cases: Sequence[Case]) -> str:
    """docs/conformance.md."""
    by_program = [{r.case.id: r for r in judged.results} for judged in all_judged]
    names = [judged.title for judged in all_judged]
    lines = [_HEAD, "| case | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for case in cases:
        cells = [_cell(results, case) for results in by_program]
        lines.append(f"| {case.id} | " + " | ".join(cells) + " |")
    counts = [judged.count() for judged in all_judged]
    lines.append("| | " + " | ".join(counts) + " |")
    lines += ["", "## What was found", ""]
    for judged in all_judged:
        faults = [r for r in judged.results if r.verdict is Verdict.FAIL]
        if faults:
            lines += [f"{judged.title}:", ""]
            lines += [f"- `{r.case.id}`: {_plain(r.evidence)}" for r in faults]
            lines.append("")
    return "\n".join(lines) + "\n" + rules(cases)


def rules(cases: Sequence[Case]) -> str:
    """The part of docs/conformance.md that says what is asked."""
    lines = [
        "## The rules",
        "",
        "| case | rule | source | sent | expected |",
        "|---|---|---|---|---|",
    ]
    for case in cases:
        cells = [case.id, case.rule, case.source, case.sends, case.expects]
        lines.append("| " + " | ".join(_plain(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(results: Mapping[str, Result], case: Case) -> str:
    result = results.get(case.id)
    if result is None:
        return "-"
    short = _SHORT.get(result.verdict, result.verdict.value)
    return f"**{short}**" if result.verdict is Verdict.FAIL else short


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
