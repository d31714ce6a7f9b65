"""`inbetween import h5 | poses | backgrounds`, `inbetween export poses`: progress, places, and what to do next."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.progress import Progress, say
from flows.project import ROOT, STATE
from tasks.catalog import UNKNOWN_LICENCE, read_catalog
from tasks.errors import ParamsError, SourceError
from tasks.import_catalog import ClipFacts, import_batches
from tasks.import_record import Import
from tasks.new_batch import BATCH_NAME, refuse_existing, write_catalog

IMPORTS = Path("data/raw/given/imports")
IMPORTED_STEP = {"train": 1, "test": 2}  # key step that the authors' DAIN pictures of either side are made for


def run_import_h5(file: Path, name: str, batch: str, fps: Sequence[str], licence: str, new_batch: str) -> None:
    from tasks.import_h5 import Options, count_work, find_layout, import_h5

    if not file.is_file():
        raise SourceError(f"{file}: there is no such file")
    layout = find_layout(file)
    if new_batch:
        _refuse_batches(new_batch, layout)
    options = Options(_frames(batch), _rates(fps), licence)
    recorded = {"batch": batch, "fps": dict(options.fps), "licence": licence}
    work = _begin(file, name, f"{layout}.h5", recorded)
    unit = "pictures" if layout == "HumanSlomo" else "frames"
    with Progress(f"import {name}", count_work(file, layout), unit) as progress:
        done = import_h5(file, layout, work, options, progress.advance)
    say(f"import: {IMPORTS / name}: {done}")
    if new_batch:
        _write_batches(new_batch, name, batch)
    else:
        _say_next(name)


def run_import_folder(what: str, folder: Path, name: str, batch: str) -> None:
    """what: "poses" or "backgrounds"."""
    from tasks.import_folders import import_backgrounds, import_poses, list_clips

    pattern, do = {"poses": ("*.json", import_poses), "backgrounds": ("*.png", import_backgrounds)}[what]
    total = sum(1 for clip in list_clips(folder) for _ in clip.glob(pattern))
    work = _begin(folder, name, what, {"batch": batch})
    with Progress(f"import {name}", total, "files") as progress:
        done = do(folder, work, _frames(batch), progress.advance)
    say(f"import: {IMPORTS / name}: {done}")
    _say_next(name)


def run_export_poses(source: str, folder: Path, which: str) -> None:
    """source: a batch, or a folder of pose tables."""
    from tasks.export_poses import export_poses
    from tasks.tables import list_tables

    poses = Path(source) if Path(source).is_dir() else ROOT / "data" / source / "poses"
    with Progress("export poses", len(list_tables(poses)), "clips") as progress:
        say(f"export: {export_poses(poses, which, folder, progress.advance)}")


def _begin(source: Path, name: str, kind: str, options: Mapping[str, object]) -> Import:
    if not name or name.startswith(".") or "/" in name:
        raise SourceError(f"--name {name!r}: is no name for a folder")
    work = Import(source, STATE / "imports" / name, ROOT / IMPORTS / name, kind, options)
    if work.is_resumed:
        say(f"import {name}: goes on where it was stopped")
    return work


def _frames(batch: str) -> dict[str, tuple[int, ...]]:
    """Clip -> its frames' numbers in the catalogue of a batch; none without a batch."""
    if not batch:
        return {}
    if not (ROOT / "catalog" / batch).is_dir():
        raise ParamsError(f"--batch {batch}: there is no folder catalog/{batch}")
    return {clip: tuple(row.frames) for clip, row in read_catalog(ROOT, batch).clips.items()}


def _rates(words: Sequence[str]) -> dict[str, float]:
    """["60", "CMU=120"] as {"": 60.0, "CMU": 120.0}."""
    rates = {}
    for word in words:
        dataset, _, number = word.rpartition("=")
        try:
            rates[dataset] = float(number)
        except ValueError as error:
            raise ParamsError(f"--fps {word}: write a number, or DATASET=NUMBER") from error
        if not 1 <= rates[dataset] <= 1000:
            raise ParamsError(f"--fps {word}: must be 1 to 1000 frames a second")
    return rates


def _refuse_batches(new_batch: str, layout: str) -> None:
    """Raises: ParamsError where there can be none of that name; CatalogError where there is one."""
    if not BATCH_NAME.fullmatch(new_batch):
        raise ParamsError(f"--new-batch {new_batch!r}: a batch's name is letters, digits, _ and -, 100 at most")
    if layout != "HumanSlomo":
        raise ParamsError(f"--new-batch {new_batch}: motions are no clips; name the import's folders under mocap")
    for split in ("train", "test"):
        refuse_existing(ROOT / "catalog" / f"{new_batch}-{split}", ["videos.csv", "clips.csv"], replaces=False)


def _write_batches(new_batch: str, name: str, batch: str) -> None:
    """A batch a side, and what params.yaml must say of each."""
    known = {}
    if batch:
        catalog = read_catalog(ROOT, batch)
        known = {clip: ClipFacts(row.subject, catalog.videos[row.video].licence) for clip, row in catalog.clips.items()}
    place = IMPORTS / name
    rows = import_batches(ROOT / place / "clips", place / "clips", known, UNKNOWN_LICENCE)
    for split, (videos, clips) in rows.items():
        one, step = f"{new_batch}-{split}", IMPORTED_STEP[split]
        write_catalog(ROOT / "catalog" / one, videos, clips, replaces=False)
        say(f"catalog/{one}: {len(clips)} clips; for params.yaml:")
        say(f"  batches.{one}: {{key_steps: [{step}], pose: {{worker: imported, source: {place / 'poses'}}}}}")
        line = f"{{batch: {one}, key_step: {step}, interpolator: imported, source: {place / 'backgrounds'}}}"
        say(f"  backgrounds.{one}-{step}: {line}")
    say("then: dvc commit -f data.dvc && git add catalog data.dvc params.yaml && git commit")


def _say_next(name: str) -> None:
    """What params.yaml may name now, and how the raw data becomes part of the record."""
    place = IMPORTS / name
    parts = sorted(path.name for path in (ROOT / place).iterdir() if path.is_dir())
    for part in parts:
        if part == "poses":
            is_json = any(path.is_dir() for path in (ROOT / place / part).iterdir())
            say(f"  batches.B.pose: {{worker: {'openpose' if is_json else 'imported'}, source: {place / part}}}")
        elif part == "backgrounds":
            line = f"{{batch: B, key_step: K, interpolator: imported, source: {place / part}}}"
            say(f"  backgrounds.B-K: {line}")
        elif part != "clips":
            say(f"  mocap.{part}: {{kind: positions, folder: {place / part}, ...}}")
    say("then: dvc commit -f data.dvc && git commit data.dvc params.yaml")
