"""The command line: each command is one function, and imports what it needs when it runs."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from scp.cli import output
from scp.errors import ConfigError, ScpError, UsageError

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="dcmpress",
    help="A DICOM node that compresses on ingest: C-STORE in, HTJ2K out, nothing lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ledger_app = typer.Typer(no_args_is_help=True, help="The account of what happened.")
app.add_typer(ledger_app, name="ledger")

ConfigOption = Annotated[
    Path | None,
    typer.Option("-c", "--config", help="YAML file; without it ./dcmpress.yaml, else the default."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def main() -> None:
    """Run a command; every expected failure is one sentence and an exit code (0, 1, 2)."""
    with _exit_codes():
        # Typer returns the code where it ends a command itself, for Ctrl-C for one.
        code = app(standalone_mode=False)
        if code:
            sys.exit(code)


@contextlib.contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        yield
    except (ConfigError, UsageError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except ScpError as error:
        print(f"dcmpress: {error}", file=sys.stderr)
        sys.exit(1)
    except typer.Abort:
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        # Of a file or folder that the user named, as a rule; else the traceback helps.
        logger.debug("the command failed", exc_info=True)
        where = f"{error.filename}: " if error.filename else ""
        print(f"dcmpress: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        # Typer's own usage errors carry how to show themselves and their exit code.
        if not hasattr(error, "show") or not hasattr(error, "exit_code"):
            raise
        error.show()
        sys.exit(error.exit_code)


@app.command()
def serve(
    config: ConfigOption = None,
    log_format: Annotated[str, typer.Option(help="console or json.")] = "console",
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "INFO",
) -> None:
    """Run the node; the port answers C-ECHO when it is ready."""
    from scp.cli.node import serve_node

    serve_node(config, log_format, log_level)


@app.command()
def check(file: Path) -> None:
    """Validate a configuration: every fault as file:line:col, exit code 2 if there is one."""
    from scp.accept.descriptors import shortage
    from scp.config.load import doubts, load

    loaded = load(file, with_files=True)
    warnings = doubts(file)
    if (too_few := shortage(loaded.limits)) is not None:
        warnings.append(f"{file}: warning: {too_few}")
    for warning in warnings:
        print(warning, file=sys.stderr)
    print(
        f"{file}: good; {len(loaded.destinations)} destinations, {len(loaded.rules)} rules and the default"
    )


@app.command()
def explain(files: list[Path], config: ConfigOption = None, json: JsonOption = False) -> None:
    """Say which rule takes each DICOM file, what is made of it, and why not. Changes nothing."""
    from scp.cli.files import explain_files

    explain_files(files, config, as_json=json)


@app.command()
def transcode(
    source: Annotated[Path, typer.Argument(metavar="IN")],
    target: Annotated[Path, typer.Argument(metavar="OUT")],
    config: ConfigOption = None,
    json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="The summary as CSV.")] = False,
) -> None:
    """Convert files that are already there, into a tree of the same shape; resumable."""
    from scp.cli.transcode import transcode_files

    if json and csv:
        raise UsageError("--json or --csv, not both")
    style: Literal["table", "json", "csv"] = "json" if json else "csv" if csv else "table"
    transcode_files(source, target, config, style=style)


@app.command()
def restore(
    enhanced: Annotated[Path, typer.Argument(metavar="ENHANCED")],
    out: Annotated[Path, typer.Argument(metavar="OUT")],
    sidecar: Annotated[
        Path | None,
        typer.Option(help="The restore record; without it the embedded one, or the one beside."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Give the original instances back out of a collapsed object; exit code 1 if one is lost."""
    from scp.cli.restore import restore_files

    restore_files(enhanced, out, sidecar, as_json=json)


@app.command()
def verify(paths: list[Path], config: ConfigOption = None, json: JsonOption = False) -> None:
    """Check delivered files against their records; exit code 1 if one differs or is gone."""
    from scp.cli.verify import verify_files

    verify_files(paths, config, as_json=json)


@app.command()
def send(
    paths: list[Path],
    to: Annotated[str, typer.Option("--to", help="AET@HOST:PORT, or a destination's name.")],
    calling: Annotated[str | None, typer.Option("--from", help="Our AE title.")] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Through TLS; so do the next four.")] = False,
    ca: Annotated[
        Path | None, typer.Option(help="Who is believed, in PEM; without it, the system's.")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Ours, in PEM, for a node that asks for one.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Its key, in PEM; without it, in the same file.")
    ] = None,
    any_host: Annotated[
        bool, typer.Option("--any-host", help="The node's certificate need not name HOST.")
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Send DICOM files, by C-STORE or to any destination, without decoding them."""
    from scp.cli.send import send_paths, tls_options

    options = tls_options(
        is_wanted=tls, ca=ca, certificate=certificate, key=key, check_host=not any_host
    )
    send_paths(paths, to, calling, config, options, as_json=json)


@app.command()
def status(
    config: ConfigOption = None,
    json: JsonOption = False,
    running: Annotated[
        bool, typer.Option("--running", help="Fail when no node answers; its folders do not count.")
    ] = False,
) -> None:
    """Counters, open series and destinations of the node."""
    from scp.cli.node import show_status

    show_status(config, as_json=json, must_run=running)


@app.command()
def held(
    job: Annotated[str | None, typer.Argument(help="Show one job whole.")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """What needs a person, and why."""
    from scp.cli.node import show_held

    show_held(job, config, as_json=json)


@app.command()
def retry(
    jobs: Annotated[list[str] | None, typer.Argument(help="Held jobs, or jobs that wait.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything held or waiting.")] = False,
    config: ConfigOption = None,
) -> None:
    """Deliver again what is held, and at once what waits for its next try."""
    from scp.cli.node import retry_jobs

    if bool(jobs) == everything:
        raise UsageError("name the jobs, or say --all")
    retry_jobs(jobs or [], config)


@app.command()
def discard(
    job: str,
    reason: Annotated[str, typer.Option(help="Kept in the ledger.")],
    config: ConfigOption = None,
) -> None:
    """Give a held job up: what was not delivered is deleted and counted as discarded."""
    from scp.cli.node import discard_job

    if not reason.strip():
        raise UsageError("--reason needs a text: it is all that will be left of the job")
    discard_job(job, reason, config)


@ledger_app.command("find")
def ledger_find(
    uid: Annotated[
        str, typer.Option(help="Of a study, a series, an instance, or a collapsed object.")
    ] = "",
    patient_id: Annotated[str, typer.Option(help="Hashed; it is kept nowhere.")] = "",
    ae_title: Annotated[str, typer.Option("--ae", help="Calling or called AE title.")] = "",
    since: Annotated[str, typer.Option(help="Finished then or later: 2026-11-25[T14:30].")] = "",
    until: Annotated[str, typer.Option(help="Finished before.")] = "",
    state: Annotated[str, typer.Option(help="delivered, skipped, discarded or repeat.")] = "",
    destination: Annotated[str, typer.Option(help="Which took it.")] = "",
    config: ConfigOption = None,
    json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output.")] = False,
) -> None:
    """What happened to instances; exit code 1 if the ledger knows none."""
    from scp.cli.ledger import find_rows, style_of

    style = style_of(as_json=json, as_csv=csv)
    find_rows(
        config,
        uid=uid,
        patient_id=patient_id,
        ae_title=ae_title,
        since=since,
        until=until,
        state=state,
        destination=destination,
        style=style,
    )


@app.command()
def reconcile(
    destination: Annotated[str, typer.Argument(metavar="DEST", help="Its name.")],
    since: Annotated[str, typer.Option(help="Delivered then or later: 2026-11-25[T14:30].")] = "",
    until: Annotated[str, typer.Option(help="Delivered before.")] = "",
    config: ConfigOption = None,
    json: JsonOption = False,
    csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output.")] = False,
) -> None:
    """Ask a destination whether it has what was delivered there; exit code 1 if something is missing."""
    from scp.cli.ledger import style_of
    from scp.cli.reconcile import reconcile as compare

    style = style_of(as_json=json, as_csv=csv)
    compare(destination, config, since=since, until=until, style=style)


@app.command()
def doctor(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Try codecs, GPU, disk, clock, ledger, port and destinations; say what works and what does not."""
    from scp.cli.doctor import examine

    examine(config, as_json=json)


@app.command()
def demo() -> None:
    """Show the main job: a node on free ports, three series sent to it, and what became of them."""
    from scp.cli.demo import run_demo

    run_demo()


@app.command()
def version() -> None:
    """Print the version."""
    output.show_version()


if __name__ == "__main__":
    main()
