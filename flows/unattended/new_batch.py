"""A new batch as the deployment ingest/new-batch takes it: its catalogue's rows and its renders, typed and bounded.

The server holds a run's parameters against the JSON schema of NewBatch before the run exists, and names the field that
is wrong; what a schema cannot say (a clip of an unknown video) is refused as the run begins. Field names are the
columns of the catalogue (docs/formats.md).
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from flows.params import BatchParams, KeyStep, Name, Params, TrainStep
from tasks.catalog import CLIP_COLUMNS, MAX_SIDE_PX, VIDEO_COLUMNS, read_catalog
from tasks.errors import CatalogError, ParamsError
from tasks.sources import parse_source

NO_MODEL = "data/raw/embedded/no-model"
NO_SOURCE = "data/raw/embedded/no-source"
LEFT_OUT = "left_out.csv"
# Folders of data/ beside those of batches.
_TAKEN = {"raw", "joints", "views", "samples", "models", "renders", "evaluations", "evaluations-motion"}

# An id becomes a file's name: it can neither leave its folder nor start like an option.
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
# A folder or file of the project's data: no way out of it.
Place = Annotated[str, StringConstraints(pattern=r"^data(/[A-Za-z0-9][A-Za-z0-9_.-]*)+$", max_length=200)]
# A cell of a CSV file: one line, and nothing that could end it early.
Cell = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=1000)]
Side = Annotated[int, Field(ge=16, le=MAX_SIDE_PX)]


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewVideo(_Given):
    """A row of videos.csv."""

    video: Id
    source: Annotated[Cell, Field(min_length=6, description="youtube:ID, https://..., file:PATH or pypi:...")]
    licence: Annotated[Cell, Field(min_length=1)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    num_frames: Annotated[int, Field(ge=1)] | None = None
    crop: Annotated[str, StringConstraints(pattern=r"^\d+:\d+:\d+:\d+$")] | None = None
    fps: Annotated[str, StringConstraints(pattern=r"^[0-9./]{1,20}$")] | None = None

    @model_validator(mode="after")
    def _check_source(self) -> "NewVideo":
        parse_source(self.source)
        if self.source.startswith("http") and "@" in urlsplit(self.source).netloc:
            raise ValueError("source: holds a user name or password, which git would keep; use download.cookies")
        return self


class NewClip(_Given):
    """A row of clips.csv: frames first..last by step, or an explicit list such as 3;5;10-16/2."""

    clip: Id
    video: Id
    split: Literal["train", "test"]
    subject: Cell = ""
    first: Annotated[int, Field(ge=0)] | None = None
    last: Annotated[int, Field(ge=0)] | None = None
    step: Annotated[int, Field(ge=1)] | None = None
    frames: Annotated[str, StringConstraints(pattern=r"^[0-9;/ -]+$")] | None = None
    width: Side
    height: Side


class NewPoses(_Given):
    """Who makes the poses, and the folder that they are read from where that is nobody here."""

    worker: Literal["mediapipe", "alphapose", "openpose", "imported"] = "mediapipe"
    source: Place = NO_SOURCE


class NewBackgrounds(_Given):
    """Who makes the backgrounds of every key step, and the folder that they are read from where that is nobody here."""

    interpolator: Literal["flow", "rife", "dain", "imported"] = "flow"
    source: Place = NO_SOURCE


class NewRender(_Given):
    """An entry of `renders` in params.yaml, but for its batch; without a name it is called BATCH-METHOD-STEP."""

    name: Name | None = None
    videos: list[Id] | None = None
    split: Literal["train", "test"] = "test"
    key_step: KeyStep
    motion: Literal["linear", "cubic", "robust", "learned"] = "robust"
    motion_model: Place = NO_MODEL
    method: Literal["blend", "flow", "rife", "warp", "neural"]
    renderer: Place = NO_MODEL
    background: Literal["base", "warp"] | None = None
    base: Literal["rife", "flow"] | None = None


class NewBatch(_Given):
    """A batch to register.

    missing: what a video that is dead or not readable does to the batch: "fail" = nothing lands, "skip" = the batch
        lands without it and its clips.
    """

    name: Name
    videos: Annotated[list[NewVideo], Field(min_length=1, max_length=10_000)]
    clips: Annotated[list[NewClip], Field(min_length=1, max_length=100_000)]
    key_steps: Annotated[list[TrainStep], Field(min_length=1, max_length=8)]
    renders: list[NewRender] = []
    pose: NewPoses = NewPoses()
    background: NewBackgrounds = NewBackgrounds()
    missing: Literal["fail", "skip"] = "fail"

    @model_validator(mode="after")
    def _check_rows(self) -> "NewBatch":
        if self.name.lower() in _TAKEN:
            raise ValueError(f"name: data/{self.name} is another stage's; take another name")
        for kind, names in (
            ("videos", [row.video for row in self.videos]),
            ("clips", [row.clip for row in self.clips]),
            ("renders", [self.render_name(row) for row in self.renders]),
            ("key_steps", [str(step) for step in self.key_steps]),
        ):
            seen: set[str] = set()
            for name in names:
                if name.lower() in seen:
                    raise ValueError(f"{kind}: {name!r} stands twice (upper and lower case count as equal)")
                seen.add(name.lower())
        known = {row.video for row in self.videos}
        for clip in self.clips:
            if clip.video not in known:
                raise ValueError(f"clips: {clip.clip}: video {clip.video!r} is not among the videos")
        for render in self.renders:
            if render.key_step not in self.key_steps:
                raise ValueError(f"renders: key step {render.key_step} is not among key_steps {self.key_steps}")
        return self

    def render_name(self, render: NewRender) -> str:
        return render.name or f"{self.name}-{render.method}-{render.key_step}"

    def videos_csv(self) -> str:
        return _write_csv(VIDEO_COLUMNS, [row.model_dump() for row in self.videos])

    def clips_csv(self) -> str:
        return _write_csv(CLIP_COLUMNS, [row.model_dump() for row in self.clips])

    def without(self, videos: Mapping[str, str]) -> "NewBatch":
        """The batch without these videos and their clips. Raises: CatalogError where nothing would be left."""
        kept = [row for row in self.videos if row.video not in videos]
        clips = [row for row in self.clips if row.video not in videos]
        if not kept or not clips:
            raise CatalogError(f"batch {self.name}: no clip is left: {describe_left_out(videos)}")
        return self.model_copy(update={"videos": kept, "clips": clips})


def describe_left_out(videos: Mapping[str, str]) -> str:
    return "; ".join(f"video {video}: {reason}" for video, reason in videos.items())


def read_batch(
    root: Path,
    name: str,
    *,
    key_steps: Sequence[int],
    renders: Sequence[NewRender] = (),
    missing: Literal["fail", "skip"] = "fail",
    params: Params | None = None,
) -> NewBatch:
    """A NewBatch from catalog/NAME/videos.csv and clips.csv under `root`.

    Args: params: where the batch stands in them, it keeps the poses, backgrounds and key steps that it has.
    Raises: CatalogError, ParamsError.
    """
    read_catalog(root, name)
    content: dict[str, object] = {
        "name": name,
        "videos": _read_csv(root / "catalog" / name / "videos.csv"),
        "clips": _read_csv(root / "catalog" / name / "clips.csv"),
        "key_steps": list(key_steps),
        "renders": [render.model_dump() for render in renders],
        "missing": missing,
    }
    there: BatchParams | None = params.batches.get(name) if params else None
    if params and there:
        backgrounds = [one for one in params.backgrounds.values() if one.batch == name]
        content["key_steps"] = sorted({*key_steps, *there.key_steps})
        content["pose"] = there.pose.model_dump()
        content["background"] = backgrounds[0].model_dump(include={"interpolator", "source"})
    return check_batch(content)


def check_batch(content: object) -> NewBatch:
    """Raises: ParamsError naming the field."""
    try:
        return NewBatch.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("batch", *first["loc"]))
        raise ParamsError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


def read_left_out(folder: Path) -> dict[str, str]:
    """Video -> why it was left out, of a batch that landed without it. {} where none was."""
    path = folder / LEFT_OUT
    return {row["video"]: row["reason"] for row in _read_csv(path)} if path.is_file() else {}


def write_left_out(batch: NewBatch, reasons: Mapping[str, str]) -> str:
    """The text of left_out.csv: the rows of videos.csv that the batch goes without, and why."""
    rows = [{**row.model_dump(), "reason": reasons[row.video]} for row in batch.videos if row.video in reasons]
    return _write_csv((*VIDEO_COLUMNS, "reason"), rows)


def _read_csv(path: Path) -> list[dict[str, Any]]:
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), skipinitialspace=True)
    return [{column.strip(): value.strip() for column, value in row.items() if value and value.strip()} for row in rows]


def _write_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Columns that no row fills are left out; so is what Python would write as None."""
    used = [column for column in columns if any(row.get(column) not in (None, "") for row in rows)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(used)
    writer.writerows([["" if row.get(column) is None else row[column] for column in used] for row in rows])
    return text.getvalue()
