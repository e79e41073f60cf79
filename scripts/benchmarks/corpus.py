"""What collapsing makes of every CT, MR and PET series of a corpus: the second table of docs/corpus.md."""

import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from scp.config.schema import Htj2kSection
from scp.convert.codec_cpu import OpenJpegDecoder, OpenJphEncoder
from scp.convert.enhanced.collapse import collapse
from scp.convert.enhanced.eligible import MODALITIES
from scp.convert.enhanced.groups import Volume, partition
from scp.convert.enhanced.refusals import NotCollapsedError
from scp.convert.enhanced.slices import SourceSlice
from scp.convert.refusals import NotConvertibleError
from scp.convert.transcode import transcode

_TAGS = ["SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "Manufacturer"]

type Key = tuple[str, str]
type Row = tuple[str, str, int, str]


def main() -> int:
    corpus = os.environ.get("DCMPRESS_CORPUS")
    if not corpus:
        print("name a folder of DICOM files in DCMPRESS_CORPUS", file=sys.stderr)
        return 2
    print("| modality | manufacturer | instances | became | series |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="dcmpress-corpus-") as folder:
        rows = Counter(rows_of(Path(corpus), Path(folder)))
    for (modality, manufacturer, count, became), series in sorted(rows.items()):
        print(f"| {modality} | {manufacturer} | {count} | {became} | {series} |")
    return 0


def rows_of(corpus: Path, folder: Path) -> Iterator[Row]:
    """One for each series, as it goes out where its rule says ``enhanced``."""
    warnings.simplefilter("ignore")
    for number, ((modality, manufacturer), paths) in enumerate(_series_in(corpus)):
        yield modality, manufacturer, len(paths), _became(paths, folder / str(number))


def _series_in(corpus: Path) -> list[tuple[Key, list[Path]]]:
    found: dict[Key, tuple[Key, list[Path]]] = {}
    for path in sorted(path for path in corpus.rglob("*") if path.is_file()):
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        except InvalidDicomError:
            continue
        if dataset.get("SOPClassUID") in MODALITIES:
            of = (str(dataset.get("Modality")), str(dataset.get("Manufacturer") or "-").strip())
            key = (str(dataset.get("StudyInstanceUID")), str(dataset.get("SeriesInstanceUID")))
            found.setdefault(key, (of, []))[1].append(path)
    return list(found.values())


def _became(paths: list[Path], folder: Path) -> str:
    folder.mkdir()
    encoder, verifier = OpenJphEncoder(), OpenJpegDecoder()
    slices: list[SourceSlice] = []
    outcomes: Counter[str] = Counter()
    for number, path in enumerate(paths):
        encoded = folder / f"{number}.dcm"
        try:
            made = transcode(path, encoded, Htj2kSection(), encoder, verifier)
        except NotConvertibleError as error:
            outcomes[f"original: {error.reason}"] += 1
            continue
        slices.append(
            SourceSlice(
                name=str(number),
                path=path,
                encoded=encoded,
                dataset_sha256=made.source.dataset,
                pixel_sha256=made.pixel_sha256,
                encoded_sha256=made.result_sha256,
            )
        )
    parts = partition(slices)
    outcomes.update(f"single: {each.reason}" for each in parts.refused)
    objects = [_object(volume, folder, outcomes) for volume in parts.volumes]
    return "; ".join(
        [*filter(None, objects), *(f"{count} {what}" for what, count in sorted(outcomes.items()))]
    )


def _object(volume: Volume, folder: Path, outcomes: Counter[str]) -> str:
    target = folder / f"volume-{volume.number}.dcm"
    try:
        made = collapse(volume, target, restore_record="embedded")
    except NotCollapsedError as error:
        outcomes[f"single: {error.reason}"] += len(volume.headers)
        return ""
    along = " x ".join(dimension.label for dimension in volume.dimensions)
    record = f"record {made.record_bytes // len(made.frames)} B a frame"
    return f"object of {len(made.frames)} frames{' along ' + along if along else ''}, {record}"


if __name__ == "__main__":
    sys.exit(main())
