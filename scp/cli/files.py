"""dcmpress explain: what would become of files, and why."""

from pathlib import Path
from typing import Any

from scp.choose.explain import Explanation, RuleExplained, explain
from scp.cli import output
from scp.cli.configuration import load_config
from scp.cli.paths import files_in
from scp.convert.enhanced.foresee import foreseen_refusal
from scp.convert.enhanced.refusals import NotCollapsedError
from scp.errors import NodeError
from scp.model import Form


def explain_files(paths: list[Path], config: Path | None, *, as_json: bool) -> None:
    """Say it for every file.

    Raises
    ------
    NodeError
        There is none.
    """
    explanations = explain(load_config(config), list(files_in(paths)))
    if as_json:
        output.show_json([_as_json(one) for one in explanations])
    else:
        for one in explanations:
            print("\n".join(_lines(one)))
    if not explanations:
        raise NodeError(f"there is no file in {', '.join(map(str, paths))}")


def _is_to_collapse(one: Explanation) -> bool:
    return any(planned.form is Form.ENHANCED for planned in one.plan.forms)


def _not_collapsed(one: Explanation) -> NotCollapsedError | None:
    return foreseen_refusal(one.path) if _is_to_collapse(one) else None


def _as_json(one: Explanation) -> dict[str, Any]:
    refusal = _not_collapsed(one)
    return {**one.to_json(), "not_collapsed": refusal and str(refusal)}


def _lines(one: Explanation) -> list[str]:
    lines = [f"{one.path}", f"  transfer syntax {one.facts.transfer_syntax or 'unknown'}"]
    lines += [f"  rule {rule.rule!r}: {_why(rule)}" for rule in one.rules]
    lines.append(f"  decided by {one.decision.rule!r}: convert {one.decision.convert}")
    if one.refusal is not None:
        lines.append(f"  not eligible: {one.refusal.reason}: {one.refusal.detail}")
    if one.plan.is_skipped:
        lines.append("  skipped: the rule sends it nowhere")
    refusal = _not_collapsed(one)
    for destination in one.destinations:
        form = destination.form if refusal is None else Form.HTJ2K.value
        lines.append(f"  to {destination.name} ({destination.where}) as {form}")
    if refusal is not None:
        lines.append(f"  not enhanced, because {refusal}")
    elif _is_to_collapse(one):
        lines.append("  enhanced if its series, once closed, allows; else htj2k")
    if one.plan.reason is not None:
        lines.append(f"  the original, because {one.plan.reason}: {one.plan.detail}")
    return lines


def _why(rule: RuleExplained) -> str:
    failed = ", ".join(
        f"{one.key} is {_found(one.found)}, not {one.condition}" for one in rule.failed
    )
    return f"{rule.answer}{': ' + failed if failed else ''}"


def _found(values: tuple[str, ...] | None) -> str:
    return "absent" if values is None else "\\".join(values) or "empty"
