"""Take a withdrawn video out of the catalogue, and its bytes out of the places that may hold them. Each step may be
done again: what is gone already is no fault.
"""

import csv
import io
import shutil
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from pathlib import Path

from tasks.lineage.marks import MARK_COLUMNS, MARKS, VideoName
from tasks.lineage.references import WITHDRAWN, Withdrawal


def mark_withdrawn(
    root: Path, rows: Mapping[VideoName, Mapping[str, str]], date: str, reason: str, hashes: Mapping[VideoName, str]
) -> list[str]:
    """Move videos from videos.csv, and their clips from clips.csv, to catalog/B/withdrawn.csv. Returns what changed.

    Args: date: of a video that is marked already, the old one stays.  hashes: sha256, where the row has none.
    """
    changed = []
    for video, row in rows.items():
        folder = root / "catalog" / video.batch
        if _add_mark(folder / MARKS, video, row, date, reason, hashes.get(video, "")):
            changed.append(f"catalog/{video.batch}/{MARKS}")
        # The clips first: a clip without its video is refused.
        dropped = [name for name in ("clips.csv", "videos.csv") if _drop_rows(folder / name, video.video)]
        changed += [f"catalog/{video.batch}/{name}" for name in dropped]
    return list(dict.fromkeys(changed))


def _add_mark(path: Path, video: VideoName, row: Mapping[str, str], date: str, reason: str, sha256: str) -> bool:
    text = path.read_text() if path.is_file() else ""
    rows = list(csv.reader(text.splitlines()))
    if any(cells and cells[0] == video.video for cells in rows[1:]):
        return False
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if not rows:
        writer.writerow(MARK_COLUMNS)
    source, licence = row.get("source", ""), row.get("licence", "")
    writer.writerow([video.video, source, licence, row.get("sha256") or sha256, date, " ".join(reason.split())])
    _replace_text(path, text + ("" if not text or text.endswith("\n") else "\n") + out.getvalue())
    return True


def _drop_rows(path: Path, video: str) -> bool:
    """Drop a video's rows; the other lines keep their bytes."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", newline="") as file:
        lines = file.read().splitlines(keepends=True)
    header = [cell.strip() for cell in next(csv.reader([lines[0].removeprefix("\ufeff")]), [])] if lines else []
    if "video" not in header:
        return False
    column = header.index("video")
    kept = lines[:1] + [line for line in lines[1:] if _cell(line, column) != video]
    if len(kept) == len(lines):
        return False
    _replace_text(path, "".join(kept))
    return True


def _cell(line: str, column: int) -> str:
    cells = next(csv.reader([line]), [])
    return cells[column].strip() if column < len(cells) else ""


def note_withdrawn(root: Path, objects: Iterable[Withdrawal]) -> None:
    """Add to lineage/withdrawn.csv, which tells an object that was removed on purpose from one that is missing."""
    path = root / WITHDRAWN
    text = path.read_text() if path.is_file() else ",".join(Withdrawal._fields) + "\n"
    known = {line.partition(",")[0] for line in text.splitlines()}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in sorted(objects):
        if row.md5 not in known:
            known.add(row.md5)
            writer.writerow(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace_text(path, text + out.getvalue())


def remove_runs(folder: Path, md5s: Collection[str]) -> int:
    """Remove the entries of DVC's run cache that would bring one of these objects or folders back."""
    number = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.is_file():
            text = path.read_text(errors="replace")
            if any(md5 in text for md5 in md5s):
                path.unlink()
                number += 1
    return number


def clear_items(folder: Path, clips: Collection[str], md5s: Collection[str]) -> int:
    """Remove from the item store what belongs to these clips, and all unfinished items: they do not tell whose.

    Returns how many were removed; the store is disposable.
    """
    number = 0
    for path in sorted(folder.glob("*/*")) if folder.is_dir() else ():
        if path.is_file():
            path.unlink()
            number += 1
        elif any(_is_of(file, clips) or file.name in md5s for file in path.iterdir()):
            shutil.rmtree(path)
            number += 1
    return number


def _is_of(path: Path, clips: Collection[str]) -> bool:
    """Whether a file is a clip's: CLIP.parquet, CLIP.mp4, or a piece CLIP+1.parquet."""
    return path.name.rpartition(".")[0].partition("+")[0] in clips


def clear_artifacts(database: Path, words: Collection[str]) -> int:
    """Remove from an embedded Prefect server's database the artifacts that name one of these files or hashes.

    Returns how many. The server must not run.
    """
    if not database.is_file():
        return 0
    number = 0
    with closing(sqlite3.connect(database, timeout=30)) as db:
        there = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table in ("artifact", "artifact_collection"):
            if table not in there:
                continue
            rows = db.execute(f"SELECT id, data, description FROM {table}").fetchall()  # noqa: S608 one of two names
            bad = [row[0] for row in rows if any(word in f"{row[1]} {row[2]}" for word in words)]
            db.executemany(f"DELETE FROM {table} WHERE id = ?", [(id_,) for id_ in bad])  # noqa: S608 one of two names
            number += len(bad)
        db.commit()
        if number:
            db.execute("VACUUM")  # what was deleted stays in the file's free pages until then
    return number


def _replace_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="")
    temporary.replace(path)
