"""Which configuration a command means."""

from pathlib import Path

from scp.config.load import load
from scp.config.schema import Config

DEFAULT_FILE = Path("dcmpress.yaml")


def load_config(path: Path | None) -> Config:
    """The file named, else ``./dcmpress.yaml`` if there is one, else the built-in default."""
    if path is None and DEFAULT_FILE.exists():
        path = DEFAULT_FILE
    return load(path)
