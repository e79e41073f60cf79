"""dcmpress transcode over files that lie: nothing is lost, and each has its reason."""

import json
from pathlib import Path

from scp.cli.manifest import read_manifest
from tests.cli.conftest import Dcmpress
from tests.convert.hostile import HOSTILE, harmless
from tests.convert.images import dataset_bytes
from tests.material import ct_series, write_all

CONFIG = """\
codec: {workers: 1}
node: {data: %s}
destinations: {archive: {kind: folder, path: %s}}
default: {convert: enhanced, send_to: [archive]}
"""


def test_what_lies_is_copied_and_what_does_not_is_converted(
    dcmpress: Dcmpress, tmp_path: Path
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write_all(ct_series(4, 32, 32, seed=990), folder / "series")
    (folder / "hostile").mkdir()
    (folder / "harmless").mkdir()
    for number, (name, (make, _)) in enumerate(HOSTILE.items()):
        (folder / "hostile" / f"{number} {name}".replace("/", " ")).write_bytes(make())
    for name, content in harmless().items():
        (folder / "harmless" / name).write_bytes(content)
    config = tmp_path / "dcmpress.yaml"
    config.write_text(CONFIG % (tmp_path / "data", tmp_path / "archive"))

    said = dcmpress("transcode", folder, out, "-c", config, "--json")

    summary = json.loads(said[: said.rindex("}") + 1])
    assert summary["failed"] == []
    manifest = read_manifest(out)
    reasons = {}
    for source in sorted((folder / "hostile").iterdir()):
        entry = manifest.entries[f"hostile/{source.name}"]
        reasons[source.name.partition(" ")[2]] = (entry.form, entry.reason)
        assert (out / "hostile" / source.name).read_bytes() == source.read_bytes()
    assert reasons == {name: ("original", reason.value) for name, (_, reason) in HOSTILE.items()}
    for source in (folder / "harmless").iterdir():
        assert manifest.entries[f"harmless/{source.name}"].form == "htj2k"
        assert dataset_bytes(out / "harmless" / source.name) != dataset_bytes(source)
    assert [volume.frames for volume in manifest.volumes.values()] == [4]
    names = [path for path in out.rglob("*") if path.is_file()]
    assert len(names) == len(HOSTILE) + len(harmless()) + 2  # The volume, and the record.
    dcmpress("verify", out, "-c", config)
