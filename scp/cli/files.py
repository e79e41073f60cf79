"""dcmpress explain: what would become of files, and why."""

from pathlib import Path

from scp.choose.explain import Explanation, RuleExplained, explain, kept_until
from scp.cli import output
from scp.cli.configuration import load_config
from scp.cli.paths import files_in
from scp.convert.enhanced.foresee import foreseen_refusal
from scp.errors import NodeError


def explain_files(paths: list[Path], config: Path | None, *, as_json: bool) -> None:
    """Say it for every file.

    Raises
    ------
    NodeError
        There is none.
    """
    explanations = explain(load_config(config), list(files_in(paths)), foresee=_foreseen)
    if as_json:
        output.show_json([one.to_json() for one in explanations])
    else:
        for one in explanations:
            print("\n".join(_lines(one)))
    if not explanations:
        raise NodeError(f"there is no file in {', '.join(map(str, paths))}")


def _foreseen(path: Path) -> str | None:
    refusal = foreseen_refusal(path)
    return None if refusal is None else str(refusal)


def _lines(one: Explanation) -> list[str]:
    lines = [f"{one.path}", f"  transfer syntax {one.facts.transfer_syntax or 'unknown'}"]
    lines += [f"  rule {rule.rule!r}: {_why(rule)}" for rule in one.rules]
    lines.append(f"  decided by {one.decision.rule!r}: convert {one.decision.convert}")
    if one.refusal is not None:
        lines.append(f"  not eligible: {one.refusal.reason}: {one.refusal.detail}")
    if one.plan.is_skipped:
        lines.append("  skipped: the rule sends it nowhere")
    for destination in one.destinations:
        lines.append(f"  to {destination.name} ({destination.where}) as {destination.form}")
    if one.not_collapsed is not None:
        lines.append(f"  not enhanced, because {one.not_collapsed}")
    if one.plan.otherwise is not None:
        lines.append(f"  enhanced if its series, once closed, allows; else {one.plan.otherwise}")
    if one.plan.reason is not None:
        lines.append(f"  the original, because {one.plan.reason}: {one.plan.detail}")
    lines.append(f"  the file that was received: {kept_until(one.originals)}")
    return lines


def _why(rule: RuleExplained) -> str:
    failed = ", ".join(
        f"{one.key} is {_found(one.found)}, not {one.condition}" for one in rule.failed
    )
    return f"{rule.answer}{': ' + failed if failed else ''}"


def _found(values: tuple[str, ...] | None) -> str:
    return "absent" if values is None else "\\".join(values) or "empty"
