"""A build backend of a few lines, for the checkouts in which test_setup.py tries the set-up.

Receives a pyproject.toml from the working directory; gives pip an editable wheel with one .pth line. Waits
for as long as a file called `hold` is there, having made one called `held`.
"""

import time
import tomllib
import zipfile
from pathlib import Path


def build_editable(wheel_directory: str, config_settings: object = None, metadata_directory: object = None) -> str:
    """The one hook of PEP 660 that has to be there."""
    root = Path.cwd()
    while (root / "hold").exists():
        (root / "held").touch()
        time.sleep(0.02)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert "scripts" not in project, "the tiny backend was told to fail"
    project_name, version = project["name"], project["version"]
    name = f"{project_name}-{version}"
    info = f"{name}.dist-info"
    members = {
        "tiny.pth": f"{root}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project_name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tiny\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    members[f"{info}/RECORD"] = "".join(f"{member},,\n" for member in members) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(Path(wheel_directory) / f"{name}-py3-none-any.whl", "w") as wheel:
        for member, text in members.items():
            wheel.writestr(member, text)
    return f"{name}-py3-none-any.whl"
