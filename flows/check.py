"""Hold what the project's files say: every params set, tools.yaml, catalogues, links in the docs."""

import re
import shutil
import subprocess
from pathlib import Path

from flows.params import load_params, load_tools
from flows.progress import say
from flows.project import ROOT
from flows.tools import check_tools
from tasks.catalog import read_catalog
from tasks.errors import ParamsError
from tasks.lineage.marks import Candidate, refuse_withdrawn

_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def run_check() -> None:
    """Raises: InbetweenError for the first thing that does not hold; says what was checked."""
    current = load_params(ROOT / "params.yaml")
    sets = sorted((ROOT / "params").glob("*.yaml"))
    for path in sets:
        load_params(path)
    tools = load_tools(ROOT / "tools.yaml")
    check_tools(sorted(tools), tools, current.run.ffmpeg)
    batches = sorted(folder.name for folder in (ROOT / "catalog").iterdir() if folder.is_dir())
    for batch in batches:
        _check_batch(ROOT, batch)
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")]
    for document in documents:
        _check_links(document)
    say(
        f"check: params.yaml and {len(sets)} params sets, {len(tools)} tools, {len(batches)} catalogues,"
        f" the links of {len(documents)} documents: all hold"
    )


def _check_links(document: Path) -> None:
    for number, line in enumerate(document.read_text().splitlines(), start=1):
        for target in _LINK.findall(line):
            if "://" in target or target.startswith("mailto:"):
                continue
            if not (document.parent / target).exists():
                where = document.relative_to(ROOT).as_posix()
                raise ParamsError(f"{where} line {number}: links to {target}, which is not there; mend the link")


def _check_batch(root: Path, batch: str) -> None:
    rows = read_catalog(root, batch, needs_clips=False).videos.values()  # stage split asks for clips
    refuse_withdrawn(root, batch, [Candidate(row.video, row.source, row.sha256 or "") for row in rows])


def use_params(name: str) -> None:
    """Replace params.yaml by params/NAME.yaml. Raises: ParamsError for an unknown name or a work tree with changes."""
    path = ROOT / "params" / f"{name}.yaml"
    names = sorted(p.stem for p in (ROOT / "params").glob("*.yaml"))
    if name not in names:
        raise ParamsError(f"params/{name}.yaml: there is no such set; there are {', '.join(names)}")
    load_params(path)
    status = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False)
    if status.returncode == 0 and status.stdout.strip():
        raise ParamsError(
            "params use: the work tree has changes that would be mixed up with the new set; commit them first"
        )
    temporary = ROOT / ".params.yaml.tmp"
    shutil.copyfile(path, temporary)
    temporary.replace(ROOT / "params.yaml")
    say(f"params.yaml is now params/{name}.yaml; `inbetween repro --plan` says what would run")


def check_everything_named(root: Path) -> None:
    """Check params.yaml and the catalogue of every batch in it, before any work starts."""
    for batch in load_params(root / "params.yaml").batches:
        if not (root / "catalog" / batch).is_dir():
            raise ParamsError(
                f"params.yaml: batches.{batch}: there is no folder catalog/{batch}; add it, or drop the batch"
            )
        _check_batch(root, batch)
