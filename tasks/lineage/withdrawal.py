"""What a video's withdrawal takes: which files hold it, in which revisions and places, and what was trained on it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tasks.lineage.downstream import HOLDS, MAY_BE_TRAINED, MAY_HOLD, STARTED, TRAINED, Search, Use
from tasks.lineage.errors import LineageError
from tasks.lineage.graph import State
from tasks.lineage.index import WORK_TREE
from tasks.lineage.lineage import Lineage
from tasks.lineage.marks import VideoName, read_marks
from tasks.lineage.references import read_folder
from tasks.lineage.things import Thing
from tasks.lineage.upstream import url_of

DIFFERS = "the work tree differs from HEAD"


@dataclass
class Plan:
    """videos: the one that was named, and others of the same source or bytes.

    rows: the catalogue's row of each, as it stood last.  clips: all that were ever cut from them.  sha256: of each,
    where it is known.  held: the files to be removed.  shared: files that show it beside others (a page, the pictures
    of a training), removed as well.  trained: the checkpoints to be trained again.  folders: md5 of every folder's list
    with such a file.  pictures: paths in git that show it.  raw: raw data of the same bytes.
    open: what could not be told.
    """

    videos: list[VideoName]
    rows: dict[VideoName, dict[str, str]]
    clips: list[tuple[str, str]]
    sha256: dict[VideoName, str]
    held: list[Use] = field(default_factory=list)
    shared: list[Use] = field(default_factory=list)
    trained: list[Use] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    pictures: list[str] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)


def plan_withdrawal(lineage: Lineage, name: str) -> Plan:
    """Look through every revision that git reaches.

    Args: name: BATCH/VIDEO, VIDEO, its source or URL; it need not stand in the catalogue any more.
    Raises: LineageError where no revision has such a video, or several have that name.
    """
    states = [State(lineage.index, revision) for revision in lineage.index.revisions]  # newest first
    rows = _rows(states)
    for video, row in read_marks(lineage.git.root).items():  # one that was never committed stands only there
        rows.setdefault(video, row)
    named = _find(rows, name.removeprefix("video:"))
    sources = {rows[video].get("source", "") for video in named} - {""}
    hashes = _hashes(lineage, states, rows)
    wanted = {hashes[video] for video in named if video in hashes}
    same = [
        video
        for video, row in rows.items()
        if video in named or row.get("source") in sources or hashes.get(video) in wanted
    ]
    clips = sorted({clip for state in states for clip in _clips(state, same)})
    plan = Plan(sorted(same), {video: rows[video] for video in sorted(same)}, clips, hashes)
    for video in plan.videos:
        _search(lineage, states[0], video, plan)
    _find_folders(lineage, plan)
    _find_raw(lineage, states, plan)
    return plan


def _rows(states: Iterable[State]) -> dict[VideoName, dict[str, str]]:
    """The newest row of every video that ever stood in a catalogue."""
    found: dict[VideoName, dict[str, str]] = {}
    for state in states:
        for batch, tables in state.catalogues.items():
            for row in tables["videos"]:
                found.setdefault(VideoName(batch, row.get("video", "")), row)
    return found


def _find(rows: Mapping[VideoName, dict[str, str]], name: str) -> list[VideoName]:
    exact = [video for video in rows if str(video) == name]
    if exact:
        return exact
    by_source = [v for v, row in rows.items() if name in (row.get("source"), url_of(row.get("source", "")))]
    if by_source:
        return by_source
    by_name = [video for video in rows if video.video == name]
    if len(by_name) > 1:
        raise LineageError(f"{name}: {len(by_name)} batches have a video of this name; write one of {_list(by_name)}")
    if not by_name:
        import difflib

        near = difflib.get_close_matches(name, [*map(str, rows), *(video.video for video in rows)], n=5, cutoff=0.5)
        raise LineageError(
            f"{name}: no revision's catalogue has such a video"
            + (f"; the nearest are {', '.join(near)}" if near else "")
        )
    return by_name


def _list(videos: Iterable[VideoName]) -> str:
    return ", ".join(map(str, videos))


def _hashes(
    lineage: Lineage, states: Iterable[State], rows: Mapping[VideoName, dict[str, str]]
) -> dict[VideoName, str]:
    """sha256 of the videos, by the catalogue or by the manifests that can be read."""
    found = {video: row["sha256"] for video, row in rows.items() if row.get("sha256")}
    outs = {
        (video.batch, state.outs[path][1].md5)
        for state in states
        for video in rows
        if (path := f"data/{video.batch}/videos") in state.outs
    }
    for batch, md5 in sorted(outs):
        for member in lineage.index.members(md5) or []:
            content = lineage.index.content(member.md5) if member.name == "manifest.json" else None
            for row in content.facts.get("rows", []) if content and content.kind == "manifest" else ():
                if row.get("sha256"):
                    found.setdefault(VideoName(batch, row.get("video", "")), row["sha256"])
    return found


def _clips(state: State, videos: Iterable[VideoName]) -> Iterable[tuple[str, str]]:
    for batch, video in videos:
        for row in state.catalogues.get(batch, {}).get("clips", []):
            if row.get("video") == video:
                yield batch, row.get("clip", "")


def _search(lineage: Lineage, state: State, video: VideoName, plan: Plan) -> None:
    own = tuple(clip for batch, clip in plan.clips if batch == video.batch)
    thing = Thing("video", str(video), batch=video.batch, clips=own, video=video.video)
    answer = Search(lineage.graph, state, thing).answer(lineage.places)
    wanted = set(plan.videos)
    others: set[str] = set()  # tables of a clip of this name that was cut from another video, without their ending
    for use in answer.uses:
        content = lineage.index.content(use.md5) if use.path.endswith(".parquet") else None
        facts = content.facts if content else {}
        if "video" in facts and VideoName(facts.get("batch", video.batch), facts["video"]) not in wanted:
            others.add(f"{use.path.rpartition('.')[0]} {use.revisions}")
    for use in answer.uses:
        if use.how == HOLDS and f"{use.path.rpartition('.')[0]} {use.revisions}" not in others:
            plan.held.append(use)
        elif use.how in (TRAINED, STARTED, MAY_BE_TRAINED):
            if use.path.startswith("data/models/"):
                plan.trained.append(use)
            elif use.path.startswith("metrics/") and use.path.endswith(".png"):
                plan.pictures.append(use.path)
                plan.shared.append(use)
        elif use.how == MAY_HOLD:
            plan.open.append(f"{use.path} with md5 {use.md5[:8]}: its list is in no place; it may hold the video")
        elif use.md5.endswith(".dir") and not use.path.startswith(("data/", "metrics/")):
            plan.shared += _files_of(lineage, use)
            plan.folders.add(use.md5)
    # That the work tree differs from HEAD is what a withdrawal does, and hides nothing.
    told = [line for line in answer.open if not line.startswith(DIFFERS)]
    plan.open += [line for line in told if line not in plan.open]


def _files_of(lineage: Lineage, use: Use) -> list[Use]:
    """A folder's files, where a place has its list: DVC's run cache keeps a page's as well."""
    path = lineage.places.find(use.md5)
    members = read_folder(path.read_bytes(), use.md5) if path else None
    return [
        Use(
            use.stage,
            f"{use.path}/{member.name}",
            member.md5,
            use.how,
            use.revisions,
            lineage.places.having(member.md5),
        )
        for member in members or []
    ]


def _find_folders(lineage: Lineage, plan: Plan) -> None:
    files = lineage.index.file_ids_of({use.md5 for use in plan.held})
    plan.folders |= lineage.index.folders_with(files)


def _find_raw(lineage: Lineage, states: Iterable[State], plan: Plan) -> None:
    """Raw data of the same bytes is its owner's to take away."""
    wanted = {use.md5 for use in plan.held}
    for state in states:
        if state.revision.id != WORK_TREE:
            continue
        for out in state.raw:
            for member in lineage.index.members(out.md5) or []:
                if member.md5 in wanted:
                    plan.raw.append(f"{out.path}/{member.name}")
