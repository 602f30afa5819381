"""Text and JSON from results: figures with every round, ratios streamflow / peer, and the aims."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .profiles import AIMS, PROFILES, Aim
from .results import Result

OURS = "streamflow"


def aims(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Each aim with its ratio; `met` is None when one side was not measured."""
    return [_judge(aim, results.get(aim.profile)) for aim in AIMS]


def _judge(aim: Aim, result: Result | None) -> dict[str, Any]:
    ratio = result.ratio(aim.case, OURS, aim.peer, aim.metric) if result else None
    figures = {name: result.median(aim.case, name, aim.metric) if result else None for name in (OURS, aim.peer)}
    return asdict(aim) | {
        "ratio": ratio,
        "met": None if ratio is None else aim.met(ratio),
        "ours": figures[OURS],
        "theirs": figures[aim.peer],
        "others": _others(result, aim) if result else None,
        "commit": result.commit if result else "",
    }


def _others(result: Result, aim: Aim) -> float | None:
    """Cores kept busy by others in the worse of the two measurements; None where load is not what was measured."""
    found = [result.median(aim.case, name, "others_cores") for name in (OURS, aim.peer)]
    return max((value for value in found if value is not None), default=None)


def missed(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Required aims that were measured and not met."""
    return [aim for aim in aims(results) if aim["met"] is False and not aim["wish"]]


def as_json(results: Mapping[str, Result]) -> dict[str, Any]:
    return {"aims": aims(results), "results": {name: asdict(result) for name, result in results.items()}}


def aims_table(results: Mapping[str, Result]) -> str:
    head = ("profile", "case", "figure", "peer", "streamflow", "peer's", "ratio", "aim", "", "others", "commit")
    return table(head, [_aim_row(aim) for aim in aims(results)])


def _aim_row(aim: Mapping[str, Any]) -> tuple[str, ...]:
    sign = ">=" if aim["at_least"] else "<="
    verdict = {None: "not measured", True: "met", False: "wished for" if aim["wish"] else "MISSED"}[aim["met"]]
    ratio = "-" if aim["ratio"] is None else f"{aim['ratio']:.2f}x"
    figures = (number(aim["ours"]), number(aim["theirs"]))
    return (
        aim["profile"],
        aim["case"],
        aim["metric"],
        aim["peer"],
        *figures,
        ratio,
        f"{sign} {aim['limit']:g}x",
        verdict,
        number(aim["others"]),
        aim["commit"],
    )


def figures_table(result: Result) -> str:
    """Medians of every figure, the rounds of the headline, and its ratio to each target."""
    headline = PROFILES[result.profile].headline
    names = list(dict.fromkeys(name for sample in result.samples for name in sample.figures))
    head = ("case", "target", *names, f"{headline} of each round", f"streamflow / target, {headline}")
    return table(head, [_figures_row(result, case, target, names, headline) for case, target in _measured(result)])


def _measured(result: Result) -> list[tuple[str, str]]:
    return sorted(dict.fromkeys((sample.case, sample.target) for sample in result.samples), key=lambda pair: _case_order(result, pair[0]))


def _case_order(result: Result, case: str) -> int:
    return [sample.case for sample in result.samples].index(case)


def _figures_row(result: Result, case: str, target: str, names: Sequence[str], headline: str) -> tuple[str, ...]:
    medians = [number(result.median(case, target, name)) for name in names]
    rounds = ", ".join(number(value) for value in result.rounds(case, target, headline))
    ratio = None if target == OURS else result.ratio(case, OURS, target, headline)
    return (case, target, *medians, rounds, "" if ratio is None else f"{ratio:.2f}x")


def facts(result: Result) -> str:
    """What stands beside the figures: when, where, which versions, how durable."""
    lines = [f"{result.profile}: {PROFILES[result.profile].about}", f"{result.started}, commit {result.commit}"]
    lines.append("machine: " + _pairs(result.machine))
    lines.append("run: " + _pairs(result.options))
    for name, versions in result.versions.items():
        lines.append(f"{name}: {_pairs(versions)}; durability: {_pairs(result.durability.get(name, {}))}")
    lines += [f"{name} could not be measured: {reason}" for name, reason in result.failures.items()]
    return "\n".join(lines)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    printed = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([printed[0], rule, *printed[1:]])
