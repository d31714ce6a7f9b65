"""Register a batch in a work tree: catalog/B and its entries in params.yaml, from which dvc.yaml makes the stages.

Only what is not there yet is added, comments and order of params.yaml stay, and what is there must be the same: the
same batch twice is one batch, another one under its name is refused.
"""

from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from flows.params import load_params, read_yaml
from flows.stage import ITEM_SECTIONS
from flows.unattended.new_batch import LEFT_OUT, NewBatch, NewClip, NewVideo, read_batch, read_left_out, write_left_out
from tasks.catalog import read_catalog
from tasks.errors import CatalogError, ParamsError
from tasks.lineage.marks import Candidate, refuse_withdrawn


def register_batch(root: Path, batch: NewBatch, left_out: Mapping[str, str] | None = None) -> NewBatch:
    """Write the batch into the work tree at `root`.

    Args: left_out: video -> why the batch goes without it; also those that it landed without before.
    Returns: the batch as it stands then: without what was left out.
    Raises: CatalogError, ParamsError where something else stands under one of its names, a video was withdrawn, or it
        does not check.
    """
    folder = root / "catalog" / batch.name
    refuse_withdrawn(root, batch.name, [Candidate(row.video, row.source, row.sha256 or "") for row in batch.videos])
    reasons = {**read_left_out(folder), **(left_out or {})}
    reasons = {row.video: reasons[row.video] for row in batch.videos if row.video in reasons}
    kept = batch.without(reasons)
    if not folder.is_dir() or _differs(root, kept):
        if folder.is_dir() and (not left_out or _differs(root, batch)):
            _refuse_other_rows(root, kept)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "videos.csv", kept.videos_csv())
        _write(folder / "clips.csv", kept.clips_csv())
        if reasons:
            _write(folder / LEFT_OUT, write_left_out(batch, reasons))
    read_catalog(root, batch.name)
    _add_params(root / "params.yaml", kept)
    load_params(root / "params.yaml")
    return kept


def stage_targets(root: Path, batch: NewBatch, *, with_renders: bool) -> list[str]:
    """The stages of a registered batch, as far as dvc.yaml has them: "pose@B"; those of its renders if asked for."""
    names = {
        "batches": [batch.name],
        "backgrounds": [f"{batch.name}-{step}" for step in batch.key_steps],
        "renders": [batch.render_name(render) for render in batch.renders] if with_renders else [],
    }
    return list_targets(root, names)


def list_targets(root: Path, names: Mapping[str, Iterable[str]]) -> list[str]:
    """Stages of dvc.yaml for these names in sections of params.yaml."""
    pipeline = read_yaml(root / "dvc.yaml")
    there = pipeline.get("stages", {}) if isinstance(pipeline, dict) else {}
    return [
        f"{stage}@{item}"
        for stage, section in ITEM_SECTIONS.items()
        if stage in there and section in names
        for item in names[section]
    ]


def _differs(root: Path, batch: NewBatch) -> bool:
    """True where the catalogue has other rows than the batch."""
    try:
        _refuse_other_rows(root, batch)
    except CatalogError:
        return True
    return False


def _refuse_other_rows(root: Path, batch: NewBatch) -> None:
    there = read_batch(root, batch.name, key_steps=batch.key_steps)
    pairs: list[tuple[str, Mapping[str, NewVideo | NewClip], Mapping[str, NewVideo | NewClip]]] = [
        ("videos.csv", {row.video: row for row in there.videos}, {row.video: row for row in batch.videos}),
        ("clips.csv", {row.clip: row for row in there.clips}, {row.clip: row for row in batch.clips}),
    ]
    for file, old, new in pairs:
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                raise CatalogError(
                    f"catalog/{batch.name}/{file}: {name} is not what the batch of this name already has; give the new"
                    f" one a name of its own, or change the catalogue in git"
                )


def _add_params(path: Path, batch: NewBatch) -> None:
    """The batch's entries in params.yaml, added where they are not there."""
    yaml = _round_trip()
    content = yaml.load(path.read_text(encoding="utf-8"))
    steps = sorted(batch.key_steps)
    wanted: dict[str, dict[str, dict[str, Any]]] = {
        "batches": {batch.name: {"key_steps": steps, "pose": batch.pose.model_dump()}},
        "backgrounds": {
            f"{batch.name}-{step}": {"batch": batch.name, "key_step": step, **batch.background.model_dump()}
            for step in steps
        },
        "renders": {
            batch.render_name(render): {"batch": batch.name, **render.model_dump(exclude={"name"}, exclude_none=True)}
            for render in batch.renders
        },
    }
    is_new = False
    for section, entries in wanted.items():
        there = content[section]
        for name, entry in entries.items():
            if name not in there:
                there[name] = _flow_style(entry)
                is_new = True
            elif there[name] != entry:
                raise ParamsError(
                    f"params.yaml: {section}.{name} is {dict(there[name])}, the batch asks for {entry}; give it another"
                    f" name, or change params.yaml in git"
                )
    if is_new:
        out = StringIO()
        yaml.dump(content, out)
        _write(path, out.getvalue())


def _round_trip() -> YAML:
    """Reads and writes params.yaml so that only what was added differs."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10_000  # an entry stays in one line
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    return yaml


def _flow_style(entry: Mapping[str, Any]) -> CommentedMap:
    row = CommentedMap()
    for key, value in entry.items():
        if isinstance(value, list):
            row[key] = CommentedSeq(value)
            row[key].fa.set_flow_style()
        else:
            row[key] = _flow_style(value) if isinstance(value, dict) else value
    row.fa.set_flow_style()
    return row


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
