"""Where this clone's DVC keeps objects, from its config files, without starting DVC (which takes half a second)."""

import configparser
import os
import sys
from pathlib import Path

from tasks.lineage.places import Place, Places


def find_places(root: Path) -> Places:
    """The cache, then every remote. A later file of DVC's config wins over an earlier one, as in DVC."""
    sections: dict[str, dict[str, str]] = {}
    for path in _config_files(root):
        for name, values in _read_config(path).items():
            sections.setdefault(name, {}).update(values)
    cache = sections.get("cache", {}).get("dir", "")
    places = [Place("cache", Path(cache) if cache else root / ".dvc" / "cache")]
    for name, values in sections.items():
        if name.startswith("remote "):
            url = values.get("url", "")
            is_local = "://" not in url or url.startswith("file://")
            places.append(
                Place(name[7:].strip('"'), Path(url.removeprefix("file://")) if is_local and url else None, url)
            )
    return Places(places)


def _config_files(root: Path) -> list[Path]:
    """In DVC's order: the machine's, the user's, the project's, this clone's."""
    if sys.platform == "darwin":
        system, user = Path("/Library/Application Support/dvc"), Path.home() / "Library/Application Support/dvc"
    else:
        dirs = os.environ.get("XDG_CONFIG_DIRS", "") or "/etc/xdg"
        system = Path(dirs.split(os.pathsep)[0]) / "dvc"
        user = Path(os.environ.get("XDG_CONFIG_HOME", "") or Path.home() / ".config") / "dvc"
    system = Path(os.environ.get("DVC_SYSTEM_CONFIG_DIR", "") or system)
    user = Path(os.environ.get("DVC_GLOBAL_CONFIG_DIR", "") or user)
    return [system / "config", user / "config", root / ".dvc/config", root / ".dvc/config.local"]


def _read_config(path: Path) -> dict[str, dict[str, str]]:
    """Section -> key -> value, paths made absolute: they are relative to the file."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    try:
        parser.read_string("\n".join(line.strip() for line in path.read_text().splitlines()))
    except (OSError, configparser.Error):
        return {}
    found = {}
    for name in parser.sections():
        values = {key: (value or "").strip("\"'") for key, value in parser[name].items()}
        for key in ("url", "dir"):
            value = values.get(key, "")
            if value and "://" not in value:
                values[key] = os.path.normpath(path.parent / Path(value).expanduser())
        found[name.strip("'")] = values
    return found
