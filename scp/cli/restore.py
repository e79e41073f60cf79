"""dcmpress restore: the original instances back out of collapsed objects."""

from pathlib import Path

from scp.cli import output
from scp.convert.enhanced.restore import NotRestorableError, Restored, restore
from scp.errors import NodeError, UsageError


def restore_files(enhanced: Path, out: Path, sidecar: Path | None, *, as_json: bool) -> None:
    """Write the originals into OUT, and say of each how true it is.

    Raises
    ------
    NodeError
        Nothing, or not everything, could be restored.
    """
    if not enhanced.is_file():
        raise UsageError(f"{enhanced}: there is no such file")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: OUT is a folder")
    if sidecar is not None and not sidecar.is_file():
        raise UsageError(f"{sidecar}: there is no such file")
    frames: list[Restored] = []
    try:
        frames += restore(enhanced, out, sidecar=sidecar)
    except NotRestorableError as error:
        raise NodeError(f"{enhanced} cannot be restored: {error}") from error
    if as_json:
        output.show_json(
            [
                {
                    "frame": each.frame,
                    "sop_instance_uid": each.sop_instance_uid,
                    "path": str(each.path) if each.path else None,
                    "is_byte_identical": each.is_byte_identical,
                    "warning": each.warning,
                    "fault": each.fault,
                }
                for each in frames
            ]
        )
    else:
        _show(frames, out)
    lost = sum(each.path is None for each in frames)
    if lost:
        raise NodeError(f"{lost} of {len(frames)} frames could not be restored")


def _show(frames: list[Restored], out: Path) -> None:
    for each in frames:
        if each.fault:
            print(f"frame {each.frame}: {each.fault}")
    warnings = {each.warning for each in frames if each.warning}
    for warning in sorted(warnings):
        print(f"warning: {warning}")
    identical = sum(each.is_byte_identical for each in frames)
    others = sum(each.path is not None for each in frames) - identical
    print(f"{out}: {identical} instances, each dataset byte for byte as it was received")
    if others:
        print(f"{out}: {others} instances that came compressed, native, with equal pixels")
