"""Images for tests: the demo's generators, and small shortcuts around them."""

from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import FileDataset

from scp.cli.demo_material import (
    colour_image,
    ct_series,
    mr_series,
    pet_series,
    radiograph,
    uid,
    write,
)

__all__ = [
    "colour_image",
    "ct_series",
    "mr_series",
    "pet_series",
    "radiograph",
    "uid",
    "write",
    "write_all",
]


def write_all(datasets: Iterable[FileDataset], folder: Path) -> list[Path]:
    """Write each to ``folder``, made where missing; the paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    return [write(dataset, folder) for dataset in datasets]
