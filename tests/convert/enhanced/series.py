"""Series for the tests of collapsing: made, written, encoded as the node would, and looked at."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileDataset
from pydicom.uid import ImplicitVRLittleEndian

from scp.config.schema import Htj2kSection
from scp.convert.codec_cpu import OpenJphEncoder
from scp.convert.digests import dataset_sha256
from scp.convert.enhanced.collapse import collapse
from scp.convert.enhanced.collapsed import Collapsed
from scp.convert.enhanced.groups import Partition, Volume, partition
from scp.convert.enhanced.record import RestoreRecord
from scp.convert.enhanced.refusals import NotCollapsed, NotCollapsedError
from scp.convert.enhanced.slices import SourceSlice
from scp.convert.received import prove_received
from scp.convert.transcode import transcode
from tests.material import ct_series, mr_series, pet_series

ENCODER = OpenJphEncoder()
ROWS, COLUMNS = 40, 56

type Series = list[FileDataset]


def ct(count: int = 5, **changes: Any) -> Series:
    return changed(ct_series(count, ROWS, COLUMNS), **changes)


def mr(count: int = 5, **changes: Any) -> Series:
    return changed(mr_series(count, ROWS, COLUMNS), **changes)


def pet(count: int = 5, **changes: Any) -> Series:
    return changed(pet_series(count, ROWS, COLUMNS), **changes)


def changed(datasets: Iterable[FileDataset], **changes: Any) -> Series:
    """With attributes set to a value, deleted (None), or set to what a function makes of the index."""
    result = list(datasets)
    for index, dataset in enumerate(result):
        for keyword, change in changes.items():
            value = change(index) if callable(change) else change
            if value is not None:
                setattr(dataset, keyword, value)
            elif keyword in dataset:
                delattr(dataset, keyword)
    return result


def repeated(
    make: Callable[[], Series], times: int, **changes: Callable[[int, int], Any]
) -> Series:
    """The series several times at the same places; ``changes`` are functions of (time, index)."""
    result: Series = []
    for time in range(times):
        for index, dataset in enumerate(make()):
            dataset.SOPInstanceUID = f"{dataset.SOPInstanceUID[:-6]}.{time + 1}{index}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.InstanceNumber = str(len(result) + 1)
            for keyword, change in changes.items():
                setattr(dataset, keyword, change(time, index))
            result.append(dataset)
    return result


def slices(datasets: Iterable[FileDataset], folder: Path) -> list[SourceSlice]:
    """Write and encode; the name of each is its number, from 0, in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for number, dataset in enumerate(datasets):
        path = folder / f"{number}.dcm"
        if dataset.file_meta.TransferSyntaxUID.is_little_endian:
            dataset.save_as(path, enforce_file_format=True)
        else:
            dcmwrite(path, dataset, force_encoding=True, implicit_vr=False, little_endian=False)
        paths.append(path)
    return encoded(paths, folder)


def encoded(paths: Sequence[Path], folder: Path) -> list[SourceSlice]:
    """Encode files that are there already."""
    made: list[SourceSlice] = []
    for number, path in enumerate(paths):
        target = folder / f"{number}.htj2k"
        result = transcode(path, target, Htj2kSection(), ENCODER, None)
        made.append(
            SourceSlice(
                name=str(number),
                path=path,
                encoded=target,
                dataset_sha256=result.source.dataset,
                pixel_sha256=result.pixel_sha256,
                encoded_sha256=result.result_sha256,
            )
        )
    return made


def received(datasets: Iterable[FileDataset], folder: Path) -> list[SourceSlice]:
    """Write them as HTJ2K, as if they came so, and prove them; the name of each is its number, from 0."""
    paths = []
    for each in slices(datasets, folder / "native"):
        paths.append(each.encoded.rename(folder / f"{each.name}.dcm"))
    return [proved(path, str(number)) for number, path in enumerate(paths)]


def proved(path: Path, name: str) -> SourceSlice:
    """A file that came as HTJ2K, as a slice of its series."""
    frame = prove_received(path)
    return SourceSlice(
        name=name,
        path=path,
        encoded=path,
        dataset_sha256=dataset_sha256(path),
        pixel_sha256=frame.pixel_sha256,
        transfer_syntax=frame.transfer_syntax,
    )


def split(datasets: Iterable[FileDataset], folder: Path) -> Partition:
    return partition(slices(datasets, folder))


def one_volume(datasets: Iterable[FileDataset], folder: Path) -> Volume:
    found = split(datasets, folder)
    assert found.refused == ()
    (volume,) = found.volumes
    return volume


def collapsed(
    datasets: Iterable[FileDataset], folder: Path, *, record: RestoreRecord = "embedded"
) -> tuple[Path, Collapsed]:
    """The object made of a series that is one volume."""
    target = folder / "enhanced.dcm"
    return target, collapse(one_volume(datasets, folder), target, restore_record=record)


def collapsed_series(
    sources: Sequence[SourceSlice], folder: Path
) -> tuple[list[tuple[Path, Collapsed]], list[NotCollapsed]]:
    """Every object that the series becomes, and what becomes of the rest of it."""
    found = partition(sources)
    objects: list[tuple[Path, Collapsed]] = []
    refused = list(found.refused)
    for volume in found.volumes:
        target = folder / f"enhanced-{volume.number}.dcm"
        try:
            objects.append((target, collapse(volume, target, restore_record="embedded")))
        except NotCollapsedError as error:
            refused += [
                NotCollapsed(name=name, reason=error.reason, detail=error.detail)
                for name in volume.names
            ]
    return objects, refused


def opened(datasets: Iterable[FileDataset], folder: Path) -> Dataset:
    """The object as pydicom reads it."""
    return dcmread(collapsed(datasets, folder)[0])


def group(image: Dataset, frame: int, keyword: str) -> Dataset:
    """A functional group of a frame, from 0, wherever it is (PS3.3 C.7.6.16.1.1)."""
    for item in (
        image.PerFrameFunctionalGroupsSequence[frame],
        image.SharedFunctionalGroupsSequence[0],
    ):
        if keyword in item:
            found: Dataset = item[keyword].value[0]
            return found
    raise AssertionError(f"{keyword} is in no functional group of frame {frame}")


def unassigned(image: Dataset, frame: int) -> Dataset:
    """Every attribute of a frame that has no place of its own, shared or not."""
    both = Dataset()
    shared = image.SharedFunctionalGroupsSequence[0]
    for item, keyword in (
        (shared, "UnassignedSharedConvertedAttributesSequence"),
        (
            image.PerFrameFunctionalGroupsSequence[frame],
            "UnassignedPerFrameConvertedAttributesSequence",
        ),
    ):
        if keyword in item:
            both.update(item[keyword].value[0])
    return both


def source_uids(image: Dataset) -> list[str]:
    """The SOP Instance UIDs of the sources, in the order of the frames."""
    return [
        str(group(image, frame, "ConversionSourceAttributesSequence").ReferencedSOPInstanceUID)
        for frame in range(int(image.NumberOfFrames))
    ]


def eight_bits(count: int, rows: int, columns: int) -> Series:
    """CT slices of 8 bits, whose frames are of odd length where rows and columns are odd."""
    generator = np.random.default_rng(5)
    series = ct(count, Rows=rows, Columns=columns, BitsAllocated=8, BitsStored=8, HighBit=7)
    for dataset in series:
        pixels: NDArray[np.uint8] = generator.integers(0, 256, rows * columns).astype(np.uint8)
        dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
        dataset["PixelData"].VR = "OW"
        dataset.PixelPaddingValue = 0
    return series


def implicit(datasets: Series) -> Series:
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return datasets
