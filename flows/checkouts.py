"""The user's checkouts of other programs: where they are and with which Python they run, from the environment."""

import os
import shutil
from pathlib import Path

from tasks.errors import ToolError


def find_checkout(name: str) -> tuple[Path, str]:
    """Folder and Python of a checkout: NAME_HOME, and NAME_PYTHON or the Python in the checkout's .venv.

    Raises: ToolError naming the variable to set.
    """
    home = os.environ.get(f"{name.upper()}_HOME")
    if not home:
        raise ToolError(f"{name}: set {name.upper()}_HOME to the folder of your checkout (docs/workers.md)")
    variable = f"{name.upper()}_PYTHON"
    folder = Path(home).resolve()
    own = folder / ".venv/bin/python"
    python = os.environ.get(variable) or (str(own) if own.is_file() else None)
    if python is None or shutil.which(python) is None:
        found = f"names {python}, which is no program" if python else "is not set"
        raise ToolError(f"{name}: {variable} {found}; set it to the Python of its own environment (docs/workers.md)")
    return folder, python
