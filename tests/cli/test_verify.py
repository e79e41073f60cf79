"""dcmpress verify of files that changed, wherever they changed; dcmpress restore of what was damaged."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from scp.cli.manifest import MANIFEST, read_manifest
from scp.cli.transcode import transcode_files
from scp.cli.verify import verify_files
from scp.convert.enhanced.record import SIDECAR_SUFFIX
from scp.elements import EXPLICIT_LITTLE, PIXEL_DATA, items_of, walk
from scp.errors import NodeError
from scp.part10 import file_meta_of
from tests.cli.conftest import Dcmpress
from tests.material import colour_image, ct_series, write_all

CONFIG = """\
codec: {workers: 1}
node: {data: %s}
enhanced: {restore_record: %s}
destinations: {archive: {kind: folder, path: %s}}
rules: [{name: volumes, match: {Modality: CT}, convert: enhanced, send_to: [archive]}]
default: {convert: htj2k, send_to: [archive]}
"""


def config_in(folder: Path, record: str) -> Path:
    file = folder / f"{record}.yaml"
    file.write_text(CONFIG % (folder / "data", record, folder / "archive"))
    return file


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each kind of restore record a configuration and an OUT: a volume of four, a colour image."""
    folder = tmp_path_factory.mktemp("converted")
    sources = folder / "in"
    write_all(ct_series(4, 24, 24, seed=995), sources)
    write_all([colour_image(16, 24, seed=996)], sources)
    for record in ("embedded", "sidecar"):
        config = config_in(folder, record)
        transcode_files(sources, folder / record, config, style="json")
    return folder


def made(converted: Path, folder: Path, record: str) -> tuple[Path, Path]:
    """The configuration, and a copy of OUT to be spoiled."""
    out = folder / "out"
    shutil.copytree(converted / record, out)
    return converted / f"{record}.yaml", out


def the_volume(out: Path) -> Path:
    (name,) = read_manifest(out).volumes
    return out / name


def regions(content: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, start and end of everything in a DICOM file that a byte may be part of."""
    meta = file_meta_of(content)
    yield "preamble", 0, 128
    yield "DICM", 128, 132
    for element in meta.elements:
        yield f"meta {element.tag:08X}", element.start, element.end
    for element in walk(content, EXPLICIT_LITTLE, start=meta.dataset_start):
        if element.tag != PIXEL_DATA:
            yield f"{element.tag:08X}", element.start, element.end
            continue
        yield "pixel data", element.start, element.value
        items = list(items_of(content, EXPLICIT_LITTLE, element))
        for number, (start, end) in enumerate(items):
            yield f"header of item {number}", start - 8, start
            if end > start:
                yield f"item {number}", start, end
        yield "delimiter", element.end - 8, element.end


@pytest.fixture
def verdict(capsys: pytest.CaptureFixture[str]) -> Callable[[Path, Path], Any]:
    """What is said of one file."""

    def of(path: Path, config: Path) -> Any:
        capsys.readouterr()
        with contextlib.suppress(NodeError):
            verify_files([path], config, as_json=True)
        (found,) = json.loads(capsys.readouterr().out)
        return found

    return of


@pytest.mark.parametrize("record", ["embedded", "sidecar"])
def test_a_bit_that_flips_anywhere_in_a_recorded_file_is_told(
    converted: Path,
    dcmpress: Dcmpress,
    verdict: Callable[[Path, Path], Any],
    tmp_path: Path,
    record: str,
) -> None:
    config, out = made(converted, tmp_path, record)
    dcmpress("verify", out, "-c", config)

    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        if path.name == MANIFEST:
            continue
        content = path.read_bytes()
        is_dicom = path.suffix != SIDECAR_SUFFIX
        spans = list(regions(content)) if is_dicom else [("sidecar", 0, len(content))]
        if is_dicom:
            assert spans[-1][2] == len(content)
        for number, (name, start, end) in enumerate(spans):
            place = (start, (start + end) // 2, end - 1)[number % 3]
            damaged = bytearray(content)
            damaged[place] ^= 1 << number % 8
            path.write_bytes(damaged)

            assert verdict(path, config)["verdict"] == "different", name
        path.write_bytes(content)
    dcmpress("verify", out, "-c", config)


def test_an_object_that_no_record_knows_tells_what_it_can(
    converted: Path, verdict: Callable[[Path, Path], Any], tmp_path: Path
) -> None:
    """Its frames, its restore record and the digests in it; of its own header it says that it cannot."""
    config, out = made(converted, tmp_path, "embedded")
    alone = tmp_path / "alone" / "volume.dcm"
    alone.parent.mkdir()
    shutil.copy(the_volume(out), alone)
    content = alone.read_bytes()
    assert verdict(alone, config)["checked"] == "sources"

    for name, start, end in regions(content):
        damaged = bytearray(content)
        damaged[start + (end - start) * 2 // 3] ^= 4
        alone.write_bytes(damaged)

        found = verdict(alone, config)

        is_told = name.startswith(("item", "header of item", "00991", "DICM"))
        if found["verdict"] == "good":
            assert "no record here tells whether its own header" in found["detail"], name
            assert not is_told, name


@pytest.mark.parametrize("record", ["embedded", "sidecar"])
def test_restore_says_whose_patient_is_another_now(
    converted: Path, dcmpress: Dcmpress, tmp_path: Path, record: str
) -> None:
    _, out = made(converted, tmp_path, record)
    volume = the_volume(out)
    dataset = pydicom.dcmread(volume)
    dataset.PatientID, dataset.PatientBirthDate = "MERGED", "19011231"
    dataset.save_as(volume)

    said = dcmpress("restore", volume, tmp_path / "back")
    told = json.loads(dcmpress("restore", volume, tmp_path / "again", "--json"))
    away = (tmp_path / "away").joinpath(volume.name)
    away.parent.mkdir()
    for path in volume.parent.glob(f"{volume.name}*"):
        shutil.copy(path, away.parent)
    verified = dcmpress("verify", away, "-c", converted / f"{record}.yaml")

    assert said.splitlines()[0] == (
        "warning: the object now says otherwise, the original as it was: PatientID, PatientBirthDate"
    )
    assert "MERGED" not in said + verified
    assert "the object now says otherwise, the original as it was: PatientID" in verified
    assert all("PatientID, PatientBirthDate" in each["warning"] for each in told)
    assert len(list((tmp_path / "back").iterdir())) == 4


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no restore record"),
        (b"something else entirely", "no restore record"),
        (b"DCMPRESS RESTORE RECORD 1\n2.25.1\n\xfd7zXZ\0", "the restore record of another object"),
    ],
)
def test_a_record_that_is_none_is_one_sentence(
    converted: Path, dcmpress: Dcmpress, tmp_path: Path, content: bytes, why: str
) -> None:
    _, out = made(converted, tmp_path, "sidecar")
    volume, wrong = the_volume(out), tmp_path / "wrong.restore"
    wrong.write_bytes(content)

    said = dcmpress("restore", volume, tmp_path / "back", "--sidecar", wrong, code=1)

    assert said == (
        f"dcmpress: {volume} cannot be restored: no restore record in the object, and {wrong}: {why}\n"
    )


@pytest.mark.parametrize("place", [40, -30], ids=["its beginning", "its end"])
def test_a_record_that_was_damaged_is_said_to_be(
    converted: Path, dcmpress: Dcmpress, tmp_path: Path, place: int
) -> None:
    _, out = made(converted, tmp_path, "sidecar")
    volume = the_volume(out)
    sidecar = volume.with_name(volume.name + SIDECAR_SUFFIX)
    content = bytearray(sidecar.read_bytes())
    content[content.index(b"\xfd7zXZ\0") + place if place > 0 else place] ^= 1
    sidecar.write_bytes(content)

    said = dcmpress("restore", volume, tmp_path / "back", code=1)

    assert "the restore record" in said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("dcmpress: ")
    written = len(list((tmp_path / "back").iterdir()))
    assert written < 4
    if written:
        assert f"dcmpress: {4 - written} of 4 frames could not be restored" in said


def test_where_nothing_can_be_restored_to_is_one_sentence(
    converted: Path, dcmpress: Dcmpress, tmp_path: Path
) -> None:
    _, out = made(converted, tmp_path, "embedded")
    (tmp_path / "file").write_text("in the way")
    place = tmp_path / "file" / "back"

    said = dcmpress("restore", the_volume(out), place, code=1)

    assert said == f"dcmpress: {place}: Not a directory\n"


# -- single frames that no record knows ------------------------------------------------------------


@pytest.fixture
def alone(converted: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A configuration without a ledger; single-frame results of the node's conversion, and nothing else."""
    config, folder = converted / "embedded.yaml", tmp_path / "alone"
    plain = tmp_path / "plain.yaml"
    plain.write_text(f"codec: {{workers: 1}}\nnode: {{data: {tmp_path / 'data'}}}\n")
    transcode_files(converted / "in", tmp_path / "out", plain, style="json")
    folder.mkdir()
    for path in (tmp_path / "out").rglob("*.dcm"):
        shutil.copy(path, folder)
    return config, folder


def test_results_without_a_record_are_proved_by_what_they_carry(
    alone: tuple[Path, Path], verdict: Callable[[Path, Path], Any]
) -> None:
    config, folder = alone
    paths = sorted(folder.iterdir())

    found = [verdict(path, config) for path in paths]

    assert len(found) == 5
    assert {(each["verdict"], each["checked"]) for each in found} == {("good", "dataset")}
    checked = {}
    for path in paths:
        image = pydicom.dcmread(path)
        image.decompress(generate_instance_uid=False)
        image.save_as(path)
        said = verdict(path, config)
        assert said["verdict"] == "good"
        checked[image.Modality] = said["checked"]
    assert checked == {"CT": "dataset", "US": "pixels"}


def test_a_header_or_a_pixel_that_changed_without_a_record_is_told(
    alone: tuple[Path, Path], verdict: Callable[[Path, Path], Any]
) -> None:
    config, folder = alone
    header, pixels, bare, *_ = sorted(folder.iterdir())
    image = pydicom.dcmread(header)
    image.PatientID = "ANOTHER"
    image.save_as(header)
    image = pydicom.dcmread(pixels)
    image.decompress(generate_instance_uid=False)
    image.PixelData = bytes((image.PixelData[0] ^ 1,)) + image.PixelData[1:]
    image.save_as(pixels)
    image = pydicom.dcmread(bare)
    del image.file_meta.PrivateInformation, image.file_meta.PrivateInformationCreatorUID
    image.save_as(bare)

    found = {path: verdict(path, config) for path in (header, pixels, bare)}

    assert (found[header]["verdict"], found[header]["checked"]) == ("different", "dataset")
    assert (found[pixels]["verdict"], found[pixels]["checked"]) == ("different", "pixels")
    assert found[bare]["verdict"] == "unknown"


def test_what_was_cut_and_no_record_knows_is_said_to_be_unreadable(
    alone: tuple[Path, Path], verdict: Callable[[Path, Path], Any]
) -> None:
    config, folder = alone
    path = next(folder.iterdir())
    path.write_bytes(path.read_bytes()[:100])

    found = verdict(path, config)

    assert found["verdict"] == "unknown"
    assert "it cannot be read as DICOM" in found["detail"]
