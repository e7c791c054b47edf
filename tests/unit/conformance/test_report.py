"""What is printed and written of results, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.__main__ import main
from tests.conformance.case import CASES, Result, Verdict
from tests.conformance.report import WIDTH, Judged, markdown, progress, rules, table, to_json

CHOSEN = list(CASES.values())


def judged(verdict: Verdict) -> Judged:
    evidence = "a response of 92 B after 0.50 s | " + "x" * 60 + " and more of that"
    results = [Result(case, verdict, evidence, 12.5) for case in CHOSEN]
    return Judged("wireguard-go", "1.2", results)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_nothing_is_wider_than_the_terminal(verdict: Verdict) -> None:
    found = judged(verdict)
    lines = table(found).splitlines()
    lines += [progress(1, 100, "a-program-with-a-long-name", r) for r in found.results]
    assert max(map(len, lines)) <= WIDTH


def test_a_fail_shows_rule_source_and_evidence() -> None:
    shown = " ".join(table(judged(Verdict.FAIL)).split())
    for case in CHOSEN:
        assert case.rule.split()[-1] in shown
    assert "a response of 92 B after 0.50 s" in shown
    assert shown.endswith(f"{len(CHOSEN)} fail")


def test_json_has_everything() -> None:
    (program,) = json.loads(to_json([judged(Verdict.PASS)]))
    assert (program["program"], program["version"]) == ("wireguard-go", "1.2")
    for case, result in zip(CHOSEN, program["results"], strict=True):
        assert (result["case"], result["rule"], result["verdict"]) == (case.id, case.rule, "pass")


def test_markdown_has_a_column_for_each_program_and_a_row_for_each_case() -> None:
    text = markdown([judged(Verdict.PASS), judged(Verdict.FAIL)], CHOSEN)
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| pass |" in line]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [c.id for c in CHOSEN]
    assert all(row.endswith("| pass | **fail** |") for row in rows)
    assert "0.50 s \\| x" in text


def test_the_document_has_the_rules_as_they_are() -> None:
    """`make conformance CONFORMANCE_ARGS='--markdown docs/conformance.md'` writes it again."""
    text = (Path(__file__).parents[3] / "docs" / "conformance.md").read_text("utf-8")
    assert text.endswith(rules(CHOSEN))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--case", "no-such-case"], "no case matches no-such-case"),
        (["--quick"], "name a program"),
    ],
)
def test_bad_arguments_end_with_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_the_list_has_all_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(case.id in listed and case.rule in listed for case in CHOSEN)
