"""highdicom alone, as it comes: what the repairs are compared with."""

import re
import subprocess
import warnings
from pathlib import Path
from typing import Any

from highdicom.legacy import (
    LegacyConvertedEnhancedCTImage,
    LegacyConvertedEnhancedMRImage,
    LegacyConvertedEnhancedPETImage,
)
from pydicom import Dataset

from tests.convert.enhanced.series import Series

_CLASSES: dict[str, Any] = {
    "CT": LegacyConvertedEnhancedCTImage,
    "MR": LegacyConvertedEnhancedMRImage,
    "PT": LegacyConvertedEnhancedPETImage,
}


def highdicom_alone(series: Series, *, seed: int = 1, series_number: int = 1) -> Dataset:
    """What the library makes of the series, without our repairs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image: Dataset = _CLASSES[series[0].Modality](
            series, f"2.25.{seed}1", series_number, f"2.25.{seed}2", 1
        )
    return image


def errors_of(dciodvfy: str, path: Path) -> set[str]:
    """The errors that dciodvfy finds, without the numbers of items and frames."""
    run = subprocess.run([dciodvfy, "-new", str(path)], capture_output=True, text=True, check=False)
    lines = (run.stdout + run.stderr).splitlines()
    assert lines
    return {re.sub(r"\[\d+\]", "", line) for line in lines if line.startswith("Error")}
