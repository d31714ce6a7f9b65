"""`inbetween stage NAME [ITEM]`: what dvc.yaml calls. Checks everything first, then runs flows/stages/NAME.py."""

import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel

from flows.disk import check_room, tell_if_short
from flows.lifetime import end_with_parent, hold_lock
from flows.lineage.record import output_paths, recorded
from flows.mapping import count_workers, map_groups, use_ray
from flows.params import Params, load_params, load_tools
from flows.progress import Progress, format_duration, say
from flows.project import FRESH, ROOT, RUNNER, RUNNERS, STATE, leave_out_pandas
from flows.raw_data import check_committed_raw_data
from flows.tools import check_tools
from tasks.errors import CatalogError, ParamsError
from tasks.items import FileId, GroupRecord, Item, ItemStore, Work, group_items, hash_file, item_key
from tasks.tables import read_skipped

if TYPE_CHECKING:  # with Ray, an optional extra
    from flows.ray.cluster import RaySettings

# The section of params.yaml whose names a stage runs for; "" = it runs once.
ITEM_SECTIONS = {
    "download": "batches",
    "split": "batches",
    "pose": "batches",
    "background": "backgrounds",
    "samples": "renderers",
    "joints": "mocap",
    "views": "mocap",
    "train_motion": "",
    "train_renderer": "renderers",
    "evaluate_motion": "",
    "render": "renders",
    "evaluate": "renders",
    "report": "",
}
STAGES = tuple(ITEM_SECTIONS)


class Output(NamedTuple):
    """One clip's files in a stage's output folder. key: the hash of all that they depend on."""

    name: str
    key: str


@dataclass(frozen=True)
class Stage:
    """What a stage may use: checked parameters, folders, and a map over items.

    name: "background".  item: "sample-4", or "" for a stage that runs once.  ray: None = items run on this machine.
    md5s: of the files placed so far.
    """

    name: str
    item: str
    params: Params
    tools: Mapping[str, str]
    code: Mapping[str, str]
    store: ItemStore
    workers: int
    ray: "RaySettings | None" = None
    md5s: dict[FileId, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.name}@{self.item}" if self.item else self.name

    def data(self, *parts: str) -> Path:
        return Path("data", *parts)

    def subset_folders(self, split: str) -> list[Path]:
        """data/views/SUBSET of the mocap subsets of one side. Raises: ParamsError where there is none."""
        subsets = self.params.mocap
        folders = [self.data("views", name) for name, subset in subsets.items() if subset.split == split]
        if not folders:
            found = ", ".join(f"{name} ({subset.split})" for name, subset in subsets.items()) or "no subset"
            raise ParamsError(f"params.yaml: mocap: {self.name} needs a subset of split {split}; there is {found}")
        return folders

    def key(self, section: BaseModel | None, *parts: object) -> str:
        """An item's key: this stage's code and tools, the parameters it reads, and the caller's parts (its inputs).

        With the stage's own label: items are dropped by the stage that made them, so no other may share them.
        """
        params = section.model_dump() if section else None
        return item_key(self.label, self.code, self.tools, params, *parts)

    def do(
        self, work: Work, items: Sequence[Item], group: Callable[[Sequence[Item], int], list[list[Item]]] = group_items
    ) -> None:
        """Have every item's output in the store; what an earlier run finished is not done again.

        Args:
            work: a picklable function of a group of items.
            group: (items still to do, workers) -> groups, each done by one call of `work`.
        """
        if not items:
            return
        todo = [item for item in items if not self.store.has(item.key)]
        workers = self.workers
        if todo and self.ray:
            from flows.ray.cluster import connect, count_slots

            connect(self.ray)
            workers = count_slots(self.ray)
        groups = group(todo, workers)
        say(f"{self.label}: {len(items)} items, {len(items) - len(todo)} kept from earlier runs, {len(todo)} to do")
        with Progress(self.label, len(todo)) as progress:

            def on_done(record: GroupRecord) -> None:
                progress.advance(record.num_items)

            map_groups(
                work,
                groups,
                self.store,
                workers=workers,
                names=[
                    f"{self.label}: {group[0].name}" + (f" +{len(group) - 1}" if group[1:] else "") for group in groups
                ],
                on_done=on_done,
                ray=self.ray,
            )

    def outputs(self, files: Mapping[str, Sequence[Path]], section: BaseModel | None, *parts: object) -> list[Output]:
        """A clip's output each, keyed by the bytes of the files that it is made from, and what else it depends on.

        Args: files: clip -> what its output is made from.
        """
        with ThreadPoolExecutor(self.workers) as threads:  # hashing works outside Python's lock
            hashes = threads.map(lambda paths: [hash_file(path) for path in paths], files.values())
            return [
                Output(name, self.key(section, "output", name, hashed, *parts))
                for name, hashed in zip(files, hashes, strict=True)
            ]

    def pending(self, outputs: Sequence[Output], what: str = "clips") -> list[Output]:
        """Those outputs that no earlier run has finished; says how many there are."""
        todo = [output for output in outputs if not self.store.has_output(output.key)]
        say(f"{self.label}: {len(outputs)} {what}, {len(outputs) - len(todo)} kept from earlier runs")
        return todo

    def write(self, writes: Sequence[tuple[Output, Sequence[Item], Callable[[Path], None]]]) -> None:
        """Write outputs into the store: each (output, its items, a function that writes its files into a folder).

        An output replaces its items, which are dropped.
        """

        def write_one(write: tuple[Output, Sequence[Item], Callable[[Path], None]]) -> None:
            output, _, write_files = write
            self.store.put_output(output.key, write_files)

        with ThreadPoolExecutor(self.workers) as threads:  # zstd and ffmpeg work outside Python's lock
            for _ in threads.map(write_one, writes):
                pass
        # Only now: two clips of the same frames have the same items.
        self.store.drop(item.key for _, items, _ in writes for item in items)

    def place(self, outputs: Sequence[Output], folder: Path) -> None:
        """The output folder: every output's files, and nothing of an earlier run."""
        empty_folder(folder)
        for output in outputs:
            self.md5s.update(self.store.link_output(output.key, folder))


def run_stage(name: str, item: str = "") -> None:
    """Run one stage in this process, in the project's folder. Raises: InbetweenError for what a user can mend."""
    if name not in STAGES:
        raise ParamsError(f"stage {name!r}: is not known; the stages are {', '.join(STAGES)}")
    os.chdir(ROOT)
    leave_out_pandas()
    end_with_parent()
    check_committed_raw_data()
    params = load_params(ROOT / "params.yaml")
    check_item(params, name, item)
    module = importlib.import_module(f"flows.stages.{name}")
    label = f"{name}@{item}" if item else name
    tools = check_tools(module.TOOLS, load_tools(ROOT / "tools.yaml"), params.run.ffmpeg)
    with hold_lock(STATE / "locks" / f"{label}.lock", label):
        stage = Stage(
            name=name,
            item=item,
            params=params,
            tools=tools,
            code=hash_code(module),
            store=ItemStore(STATE / "items", is_fresh=os.environ.get(FRESH) == "1"),
            workers=count_workers(params.run.workers),
            ray=_ray_settings(params, name, tools),
        )
        use_ray(stage.ray)
        check_room()  # not before the stage's code is hashed: what it imports is none of it
        start = time.monotonic()
        with recorded(name, item, tools, stage.md5s):
            if name == "download":
                _refuse_withdrawn(item)
            module.run(stage)
            if name == "download":
                _remove_withdrawn(item)
        say(f"{label}: done in {format_duration(time.monotonic() - start)}")
        tell_if_short(label, output_paths(name, item))


def _refuse_withdrawn(batch: str) -> None:
    """Before anything is fetched. Raises: CatalogError for a row that brings back a withdrawn video."""
    # Here: what these import is none of the stage's code, which is hashed by now.
    from tasks.catalog import read_catalog
    from tasks.lineage.marks import Candidate, refuse_withdrawn

    rows = read_catalog(ROOT, batch, needs_clips=False).videos.values()
    refuse_withdrawn(ROOT, batch, [Candidate(row.video, row.source, row.sha256 or "") for row in rows])


def _remove_withdrawn(batch: str) -> None:
    """Remove the bytes of a withdrawn video that came from another source. Raises: CatalogError where they did."""
    from tasks.lineage.marks import Candidate, describe_withdrawn
    from tasks.sources import read_manifest

    folder = ROOT / "data" / batch / "videos"
    for row in read_manifest(folder).ok:
        for line in describe_withdrawn(ROOT, batch, [Candidate(row.video, row.source, row.sha256 or "")]):
            (folder / str(row.file)).unlink(missing_ok=True)
            raise CatalogError(line)


def _ray_settings(params: Params, name: str, tools: dict[str, str]) -> "RaySettings | None":
    """What Ray must know, where it is the runner (params.yaml, or INBETWEEN_RUNNER: repro --runner). None = it is not.

    Raises: ParamsError where INBETWEEN_RUNNER is another word; ToolError where Ray is not installed.
    """
    run = params.run
    runner = os.environ.get(RUNNER) or run.runner
    if runner not in RUNNERS:
        raise ParamsError(f"{RUNNER}: {runner!r} is not known; the runners are {', '.join(RUNNERS)}")
    if runner == "local":
        return None
    from flows.ray.cluster import RaySettings

    wanted = {str(stage): resources for stage, resources in run.resources.items()}.get(name)
    return RaySettings(
        address=run.ray_address,
        cpus=wanted.cpus if wanted else 1,
        gpus=wanted.gpus if wanted else 0,
        cache_bytes=int(run.node_cache_gb * 2**30),
        workers=count_workers(run.workers),
        tools=tools,
        ffmpeg=run.ffmpeg,
    )


def check_item(params: Params, name: str, item: str) -> None:
    """Raises: ParamsError where params.yaml has no such batch, renderer or the like, or one is given to report."""
    names = item_names(params, name)
    if item not in names:
        known = ", ".join(filter(None, names)) or "none"
        raise ParamsError(f"params.yaml: {ITEM_SECTIONS[name] or name} has no {item!r}; there is {known}")


def item_names(params: Params, name: str) -> list[str]:
    """What a stage runs for; "" = it runs once."""
    section = ITEM_SECTIONS[name]
    return list(getattr(params, section)) if section else [""]


def code_files(module: ModuleType) -> list[str]:
    """The project's files that this process has imported and that shape a stage's bytes, and the scripts it names.

    These are the stage's code deps in dvc.yaml. Left out is what only chooses where work runs or hands over values that
    DVC already tracks as params: everything of flows/ but the stage's own file.
    """
    files = set(getattr(module, "SCRIPTS", ()))
    for loaded in list(sys.modules.values()):
        path = getattr(loaded, "__file__", None)
        if not path or not Path(path).is_relative_to(ROOT):
            continue
        name = Path(path).relative_to(ROOT).as_posix()
        if name.startswith(("tasks/", "models/", "flows/stages/")) and Path(path).stat().st_size:
            files.add(name)
    return sorted(files)


def hash_code(module: ModuleType) -> dict[str, str]:
    return {name: hash_file(ROOT / name) for name in code_files(module)}


def note_missing_clips(stage: Stage, clips: Path) -> None:
    """Say which clips a batch goes without because their video was skipped."""
    for clip, reason in read_skipped(clips).items():
        say(f"{stage.label}: goes on without clip {clip}: {reason}")


def empty_folder(path: Path) -> Path:
    """An output folder with nothing of an earlier run in it."""
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    return path


def write_json(path: Path, content: object) -> None:
    """Write JSON for git, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)
