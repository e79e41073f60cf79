"""A project as small as can be, to run scripts/setup and scripts/run on without a download."""

import shutil
from pathlib import Path

from tests.conftest import REPOSITORY

_PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""

_BACKEND = '''\
"""Builds a wheel whose command shows its folder and its arguments."""

import zipfile
from pathlib import Path

FILES = {
    "shows.py": "import os, sys\\ndef main(): print(os.getcwd(), *sys.argv[1:])\\n",
    "dcmpress-0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: dcmpress\\nVersion: 0\\n",
    "dcmpress-0.dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n",
    "dcmpress-0.dist-info/entry_points.txt": "[console_scripts]\\ndcmpress = shows:main\\n",
}


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "dcmpress-0-py3-none-any.whl"
    record = "".join(f"{path},,\\n" for path in FILES) + "dcmpress-0.dist-info/RECORD,,\\n"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w") as wheel:
        for path, content in {**FILES, "dcmpress-0.dist-info/RECORD": record}.items():
            wheel.writestr(path, content)
    return name
'''


def make_project(folder: Path) -> Path:
    """Fill ``folder`` with the scripts, a lock of nothing, and a package that needs no builder."""
    (folder / "scripts").mkdir(parents=True)
    for name in ("setup", "run"):
        shutil.copy2(REPOSITORY / "scripts" / name, folder / "scripts" / name)
    (folder / "requirements-dev.lock").write_text("")
    (folder / "pyproject.toml").write_text(_PYPROJECT)
    (folder / "backend.py").write_text(_BACKEND)
    return folder
