"""What HTJ2K costs in size beside JPEG-LS and JPEG 2000, by modality, over a folder of real images.

The folder is named by DCMPRESS_CORPUS. Codestreams alone are compared, frame by frame.
"""

import os
from collections import Counter, defaultdict
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom

from scp.choose.eligibility import ineligible
from scp.choose.image_header import read_image_header
from scp.config.schema import Htj2kSection
from scp.convert.codec_cpu import OpenJphEncoder
from scp.convert.refusals import NotConvertibleError
from scp.convert.source import open_source

_NATIVE, _HTJ2K, _JPEG_LS, _J2K = "native", "HTJ2K", "JPEG-LS", "JPEG 2000"


def run(folder: Path) -> None:
    """One line a modality, of everything that the node would convert."""
    corpus = os.environ.get("DCMPRESS_CORPUS")
    if not corpus:
        raise SystemExit("name a folder of DICOM files in DCMPRESS_CORPUS")
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    files: Counter[str] = Counter()
    for path in sorted(path for path in Path(corpus).rglob("*") if path.is_file()):
        try:
            if ineligible(read_image_header(path), max_native_bytes=2**31) is not None:
                continue
            found = _sizes(path)
        except (NotConvertibleError, OSError):
            continue
        modality = str(pydicom.dcmread(path, stop_before_pixels=True).get("Modality") or "-")
        sizes[modality] += found
        files[modality] += 1
    print("| modality | files | native MB | HTJ2K | JPEG-LS | JPEG 2000 |")
    print("|---|---|---|---|---|---|")
    for modality, found in sorted(sizes.items()):
        ratios = " | ".join(f"{found[_NATIVE] / found[c]:.2f}" for c in (_HTJ2K, _JPEG_LS, _J2K))
        print(f"| {modality} | {files[modality]} | {found[_NATIVE] / 1e6:.1f} | {ratios} |")


def _sizes(path: Path) -> Counter[str]:
    image = open_source(path, None)
    found: Counter[str] = Counter()
    for batch in image.batches():
        found[_NATIVE] += batch.nbytes
        encoded = OpenJphEncoder().encode(batch, image.frame_format, Htj2kSection())
        found[_HTJ2K] += sum(map(len, encoded))
        for frame in batch:
            # JPEG-LS knows no sign: the words are moved up, which costs nothing and is what is best for it.
            words = frame.view(f"<u{frame.itemsize}")
            if image.frame_format.is_signed:
                words = words + np.array(1 << (8 * frame.itemsize - 1), words.dtype)
            plain = words[..., 0] if words.shape[-1] == 1 else words
            found[_JPEG_LS] += len(imagecodecs.jpegls_encode(np.ascontiguousarray(plain)))
            shaped = frame[..., 0] if frame.shape[-1] == 1 else frame
            found[_J2K] += len(
                imagecodecs.jpeg2k_encode(
                    np.ascontiguousarray(shaped), reversible=True, codecformat="j2k"
                )
            )
    return found
