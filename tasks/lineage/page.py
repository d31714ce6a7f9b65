"""The lineage page: one HTML file with everything inside it, drawn from an overview. It asks nothing of any network.

What is where, and every thing's path, are decided here; the page's script (page.html.j2) shows them. The same overview
gives the same bytes. Names and titles come from catalogues and the net: they reach the page as JSON alone, and the
script makes text of them, never markup; scripts other than the page's own are refused by its policy.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tasks.lineage.errors import LineageError
from tasks.lineage.licences import YES
from tasks.lineage.overview import (
    CHECKPOINT,
    CLIP,
    DATASET,
    KINDS,
    MARKS,
    METRIC,
    MOTION,
    PICTURES,
    RAW,
    RENDER,
    REPORT,
    SUBJECT,
    VIDEO,
    Overview,
    Thing,
    licence_of,
)
from tasks.lineage.thumbnails import Thumbnail
from tasks.lineage.upstream import ClipFacts, RawFacts, StageFacts, VideoFacts

TEMPLATE = "page.html.j2"
LIBRARY_SHA256 = "081591ab735b2b6a3b31a3c60f8f3a3e2fee8c92939e0c7820ad1208571b6cd8"  # cytoscape.js 3.34.4, as published
GENERATOR = "inbetween lineage page"

COLUMNS = (
    "Sources", "Clips, joints", "Poses, backgrounds, views", "Training sets", "Checkpoints", "Renders", "Measures",
    "Report",
)  # fmt: skip
_NOUNS = {
    "download": "videos", "split": "clips", "pose": "poses", "background": "backgrounds", "samples": "training sets",
    "joints": "joints", "views": "views", "train_motion": "motion checkpoints", "train_renderer": "renderers",
    "render": "renders", "evaluate": "measures", "evaluate_motion": "motion measures",
}  # fmt: skip
MAX_BANDS = 6  # batches beyond share one band, and what is alike in it stands folded
MAX_ALIKE = 8  # things of one kind in a band and column; more are folded into one
MAX_OPEN = 120  # things that are shown at the start; of more, folders are shown closed
_MAX_ITEMS_OPEN = 8


def make_page(overview: Overview, thumbnails: Mapping[int, Thumbnail], library: Path) -> str:
    """The page's text.

    Args: thumbnails: by the clip's number.  library: cytoscape.js, as it was published.
    Raises: LineageError where the library's file is not that.
    """
    code = library.read_bytes() if library.is_file() else b""
    if hashlib.sha256(code).hexdigest() != LIBRARY_SHA256:
        raise LineageError(
            f"{library}: is not the file on record in THIRD_PARTY.md; `git checkout {library}` brings it"
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    script = (Path(__file__).parent / "page.js").read_text()
    counts = Counter(thing.kind for thing in overview.things if not thing.of)
    return environment.get_template(TEMPLATE).render(
        generator=GENERATOR,
        revision=_name_revision(overview),
        counts=_count(counts, sum(len(t.recordings) for t in overview.things if t.kind == SUBJECT)),
        open=overview.open,
        data=_embed(describe(overview, thumbnails)),
        library=Markup(code.decode()),  # noqa: S704 its bytes are those on record
        script=Markup(script),  # noqa: S704 our own
        hashes=[_policy_hash(code.decode()), _policy_hash(script)],
    )


def _policy_hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _embed(content: object) -> Markup:
    """JSON that no HTML parser takes for markup, wherever it stands."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704 escaped above


def _name_revision(overview: Overview) -> str:
    short = overview.commit[:9]
    return f"the work tree, on {short}" if overview.revision == "work tree" and short else overview.revision


def _count(counts: Mapping[str, int], num_recordings: int) -> list[tuple[int, str]]:
    rows = [
        (counts.get(VIDEO, 0), "video"),
        (counts.get(CLIP, 0), "clip"),
        (num_recordings, "recording"),
        (counts.get(CHECKPOINT, 0), "checkpoint"),
        (counts.get(RENDER, 0), "render"),
    ]
    return [(number, word if number == 1 else f"{word}s") for number, word in rows]


def describe(overview: Overview, thumbnails: Mapping[int, Thumbnail]) -> dict[str, Any]:
    """What the script works on. Things are named by their numbers; folds, which no question knows, come after them."""
    things = overview.things
    columns = _place_in_columns(overview)
    bands, band_of = _place_in_bands(things)
    sets = _Sets()
    rows: list[dict[str, Any]] = []
    for number, thing in enumerate(things):
        is_alone = bands[band_of[number]][1] != ""
        row: dict[str, Any] = {
            "kind": KINDS.index(thing.kind),
            "name": thing.name,
            "label": thing.name if thing.of and not is_alone else _label(thing),
            "sub": _describe_shortly(thing, overview.holds.get(number, set()), is_alone=is_alone),
            "key": thing.key,
            "batch": thing.batch,
            "column": columns[number],
            "band": band_of[number],
        }
        optional: dict[str, Any] = {
            "of": thing.of,
            "ask": thing.ask if not thing.key.startswith("recordings:") else "",
            "marks": {str(MARKS.index(mark)): lines[:8] for mark, lines in thing.marks.items()},
            "facts": list(_list_facts(thing, overview, number)),
            "files": [[file.stage, file.path, file.md5] for file in thing.files],
            "outs": [[out.path, out.md5, out.size] for out in thing.outs],
            "up": [[role, sets.number_of(reached)] for role, reached in sorted(thing.up.items())],
            "down": sets.number_of(thing.down) if thing.down else None,
            "use": thing.licences.verdict if thing.licences else "",
            "parents": _list_parents(thing),
        }
        if picture := thumbnails.get(number):
            optional |= {
                "picture": base64.b64encode(picture.jpeg).decode(),
                "size": [picture.width, picture.height],
            }
        rows.append(row | {name: value for name, value in optional.items() if value not in ("", [], {}, None)})
        if thing.parent >= 0:
            rows[-1]["parent"] = thing.parent
    _fold(rows, things, bands)
    return {
        "kinds": KINDS,
        "marks": MARKS,
        "columns": COLUMNS,
        "bands": [label for _, _, label in bands],
        "things": rows,
        "sets": sets.rows,
        "edges": sorted({(edge.source, edge.reader) for edge in overview.edges}),
        "cuts": sorted((video, clip) for video, clips in overview.cuts.items() for clip in clips),
        "holders": sorted(overview.holds),
        "open": _open_at_start(rows),
    }


class _Sets:
    """Each different set once, as [first, how many, ...] of its runs: most things of a batch have the same path."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self._known: dict[frozenset[int], int] = {}

    def number_of(self, numbers: frozenset[int]) -> int:
        if numbers not in self._known:
            self._known[numbers] = len(self.rows)
            runs: list[int] = []
            for number in sorted(numbers):
                if runs and number == runs[-2] + runs[-1]:
                    runs[-1] += 1
                else:
                    runs += [number, 1]
            self.rows.append(runs)
        return self._known[numbers]


# Where things stand.


def _place_in_columns(overview: Overview) -> list[int]:
    """By what a thing is; to the right of all that it was made from."""
    found = [_column(thing) for thing in overview.things]
    into: dict[int, list[int]] = {}
    for edge in overview.edges:
        if edge.asked is not None:
            into.setdefault(edge.reader, []).append(edge.source)
    for _ in COLUMNS:  # as often as something may be pushed on
        for reader, sources in into.items():
            found[reader] = min(len(COLUMNS) - 1, max(found[reader], 1 + max(found[source] for source in sources)))
    for number, thing in enumerate(overview.things):
        if thing.parent >= 0:
            found[number] = found[thing.parent]
    return found


def _column(thing: Thing) -> int:
    if thing.kind == DATASET:
        verb = _verb(thing)
        return {"download": 0, "split": 1, "joints": 1, "samples": 3}.get(verb, 2)
    return {CLIP: 1, CHECKPOINT: 4, RENDER: 5, METRIC: 6, REPORT: 7}.get(thing.kind, 0)


def _verb(thing: Thing) -> str:
    """The stage's name without its item, "" for what no stage made."""
    words = thing.facts.cmd.split() if isinstance(thing.facts, StageFacts) else []
    return words[2] if words[:2] == ["inbetween", "stage"] and words[2:] else thing.key.partition("@")[0] * bool(words)


def _place_in_bands(things: list[Thing]) -> tuple[list[tuple[str, str, str]], list[int]]:
    """Rows of the picture, (chain, batch, label), and each thing's: a batch each, or all, then motion capture."""
    batches = sorted({thing.batch for thing in things if thing.chain == PICTURES and thing.batch})
    is_each = len(batches) <= MAX_BANDS
    bands = [(PICTURES, batch, batch) for batch in batches] if is_each else []
    if not is_each:
        bands.append((PICTURES, "", f"pictures, {len(batches)} batches"))
    if any(thing.chain == MOTION for thing in things):
        bands.append((MOTION, "", "motion"))
    places = {(chain, batch): number for number, (chain, batch, _) in enumerate(bands)}
    shared = 0 if sum(chain == PICTURES for chain, _, _ in bands) == 1 else len(bands)
    found = []
    for thing in things:
        place = places.get((thing.chain, thing.batch), places.get((thing.chain, "")))
        found.append(shared if place is None else place)
    if shared == len(bands) and shared in found:
        bands.append(("", "", "all together"))
    return bands, found


def _fold(rows: list[dict[str, Any]], things: list[Thing], bands: list[tuple[str, str, str]]) -> None:
    """Fold what is alike and too much into one: "60 renders". Adds rows."""
    alike: dict[tuple[int, int, str], list[int]] = {}
    for number, thing in enumerate(things):
        if thing.parent < 0:
            word = "recordings" if thing.kind == RAW and thing.of else _NOUNS.get(_verb(thing), thing.kind)
            alike.setdefault((rows[number]["band"], rows[number]["column"], word), []).append(number)
    for (band, column, word), numbers in alike.items():
        if len(numbers) <= MAX_ALIKE:
            continue
        batches = {rows[number]["batch"] for number in numbers}
        unit = "subset" if bands[band][0] == MOTION else "batch"
        sub = f"of {len(batches)} {unit}{'' if len(batches) == 1 else 's' if unit == 'subset' else 'es'}"
        first = rows[numbers[0]]
        items = sum(things[number].parent in numbers for number in range(len(things))) if things[numbers[0]].of else 0
        label = f"{items or len(numbers):,} {'subjects' if word == 'recordings' else word}"
        fold = {
            "kind": first["kind"], "name": word, "label": label, "sub": sub, "key": f"all {word} {band}", "batch": "",
            "column": column, "band": band, "fold": True,
        }  # fmt: skip
        if of := first.get("of"):
            fold["of"] = of
        for number in numbers:
            rows[number]["parent"] = len(rows)
        rows.append(fold)


def _open_at_start(rows: list[dict[str, Any]]) -> list[int]:
    children = Counter(row["parent"] for row in rows if "parent" in row)
    if sum(number not in children for number in range(len(rows))) > MAX_OPEN:
        return []
    return [n for n, count in sorted(children.items()) if count <= _MAX_ITEMS_OPEN and rows[n].get("of") != SUBJECT]


# What is said of a thing.


def _label(thing: Thing) -> str:
    """The name without the batch, which stands beside it."""
    name = thing.name.removeprefix(f"{thing.batch} ").removesuffix(f" {thing.batch}")
    return name.removeprefix(f"{thing.batch}-") if thing.outs and thing.batch else name


def _describe_shortly(thing: Thing, held: Collection[int], *, is_alone: bool) -> str:
    """A few words below the name. is_alone: its band is its batch's alone, and says so."""
    match thing.facts:
        case VideoFacts() as video:
            return video.licence or "licence not told"
        case ClipFacts() as clip:
            return ", ".join(filter(None, [clip.frames, clip.split]))
        case RawFacts() as raw:
            return raw.kind
    if thing.recordings:
        number = len(thing.recordings)
        return f"{number} recording{'s' if number > 1 else ''}"
    if held and is_alone:
        return f"{len(held)} {CLIP}{'s' if len(held) > 1 else ''}"
    return "" if is_alone else thing.batch


def _list_facts(thing: Thing, overview: Overview, number: int) -> Iterable[list[str]]:
    """Label and value of what the card shows; a third word is a link."""
    match thing.facts:
        case VideoFacts() as video:
            yield from _list_video(video)
        case ClipFacts() as clip:
            videos = [overview.things[v].name for v, clips in overview.cuts.items() if number in clips]
            rows = [("Frames", clip.frames), ("Split", clip.split), ("Subject", clip.subject)]
            yield from ([label, value] for label, value in [("Video", ", ".join(videos)), *rows] if value)
        case RawFacts() as raw:
            yield ["What", raw.kind]
            yield ["Licence", licence_of(raw)]
            yield ["Files", str(raw.num_files)]
            yield ["md5 of the whole", raw.md5]
        case StageFacts() as stage:
            yield from _list_stage(stage, overview, number)
    if thing.recordings:
        motions = thing.recordings
        places = sorted({m.file.rpartition("/")[0] if m.file else "not in this project" for m in motions})
        yield ["Licence", ", ".join(sorted({m.licence or "not told" for m in motions}))]
        yield ["Recordings", f"{len(motions)}: {motions[0].sequence} .. {motions[-1].sequence}"]
        yield ["Files in", ", ".join(places[:3]) + (f" and {len(places) - 3} more folders" if places[3:] else "")]


def _list_video(video: VideoFacts) -> Iterable[list[str]]:
    yield ["Licence", video.licence or "not told"]
    rows = [
        ("By its site", video.source_licence),
        ("Title", video.title),
        ("Uploader", video.uploader),
        ("Uploaded", video.upload_date),
    ]
    yield from ([label, value] for label, value in rows if value)
    if video.url:
        is_link = video.url.startswith(("https://", "http://"))
        yield ["Source", video.url, video.url] if is_link else ["Source", video.url]
    yield ["Read", video.retrieved or "not told"]
    yield ["sha256", video.sha256 or "not told"]
    if video.status and video.status != "ok":
        yield ["Status", video.status]


def _list_stage(stage: StageFacts, overview: Overview, number: int) -> Iterable[list[str]]:
    yield ["Stage", stage.stage]
    yield ["Command", stage.cmd]
    if stage.event == "not recorded":
        yield ["Made", "not recorded"]
    else:
        revision = f"at {stage.rev[:9]}{', with changes' if stage.is_dirty else ''}" if stage.rev else ""
        yield ["Made", " ".join(filter(None, [stage.event, stage.finished, f"by {stage.user}", revision]))]
    if stage.run:
        yield ["Prefect run", stage.run]
    for label, pairs in (("Seeds", stage.seeds), ("Tools", stage.tools)):
        if pairs:
            yield [label, ", ".join(f"{name} {value}" for name, value in pairs.items())]
    if held := overview.holds.get(number):
        kinds = Counter(overview.things[item].kind for item in held)
        yield ["Holds", ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in kinds.items())]


def _list_parents(thing: Thing) -> list[list[str]]:
    """The licences that decide, those that are not simply yes: verdict, whose, licence, duty."""
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for parent in thing.licences.parents if thing.licences else []:
        if parent.verdict != YES:
            alike.setdefault((parent.verdict, parent.kind, parent.licence, parent.duty), []).append(parent.name)
    return [
        [verdict, f"{kind} {', '.join(names[:3])}{f' and {len(names) - 3} more' if names[3:] else ''}", licence, duty]
        for (verdict, kind, licence, duty), names in alike.items()
    ]
