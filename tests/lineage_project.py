"""A made-up project with real file formats: git, dvc.lock, DVC's cache, tables with their facts, provenance, a record.

No stage runs: `Project.run` writes down that one did, as DVC would. So a thousand clips in two hundred revisions are
made in seconds, and what the right answers are is known beforehand.
"""

import hashlib
import io
import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pyarrow import csv

MOTION_COLUMNS = ("subset", "subject", "sequence", "licence", "source_sha256")


def md5_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def sha256_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def list_bytes(files: Mapping[str, str]) -> bytes:
    """A folder as DVC lists it."""
    return json.dumps([{"md5": files[name], "relpath": name} for name in sorted(files)]).encode()


def table_bytes(facts: Mapping[str, str]) -> bytes:
    """A table of no rows with a table's facts."""
    schema = pa.schema([("frame", pa.int32())], metadata={"inbetween": json.dumps(dict(facts))})
    return _parquet(schema.empty_table())


def motions_bytes(rows: Sequence[Mapping[str, str]], facts: Mapping[str, str], views: int = 1) -> bytes:
    """A table of joints or views: a row a motion and view, with one frame each."""
    lines = ["\t".join(row[name] for name in MOTION_COLUMNS) + "\t1\n" for _ in range(views) for row in rows]
    text = "\t".join([*MOTION_COLUMNS, "num_frames"]) + "\n" + "".join(lines)
    # As text: an array from a list has pyarrow import pandas, which takes longer than all that is made here.
    table = csv.read_csv(io.BytesIO(text.encode()), parse_options=csv.ParseOptions(delimiter="\t"))
    return _parquet(table.replace_schema_metadata({"inbetween": json.dumps(dict(facts))}))


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False)
    return buffer.getvalue()


@dataclass
class Ran:
    """An entry of dvc.lock."""

    cmd: str
    deps: dict[str, str]
    params: dict[str, dict[str, Any]]
    outs: dict[str, str]


@dataclass
class Project:
    """Files in git as they stand, DVC's cache on the disk, and what `run` has noted."""

    root: Path
    cache: Path = Path()
    tracked: dict[str, bytes] = field(default_factory=dict)
    ran: dict[str, Ran] = field(default_factory=dict)
    folders: dict[str, dict[str, str]] = field(default_factory=dict)  # md5.dir -> name -> md5
    raw: dict[str, str] = field(default_factory=dict)
    record: list[str] = field(default_factory=list)
    tools: dict[str, str] = field(default_factory=lambda: {"opencv": "5.0"})
    revision_number: int = 0
    separator: str = "@"  # of a stage's name and item: DVC finds "@" in templates alone

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.cache = self.root / ".dvc/cache/files/md5"
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.email", "ada@example.org")
        self.git("config", "user.name", "Ada")
        self.tracked[".gitignore"] = b"/data/\n/.inbetween/\n/.dvc/cache\n/.dvc/tmp\n/report/\n"
        self.tracked[".dvc/config"] = b"[core]\n    analytics = false\n"

    def git(self, *words: str, data: bytes | None = None) -> str:
        env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        done = subprocess.run(["git", *words], cwd=self.root, input=data, capture_output=True, check=True, env=env)
        return done.stdout.decode().strip()

    def store(self, data: bytes) -> str:
        """An object of the cache."""
        md5 = md5_of(data)
        self._put(md5, data)
        return md5

    def store_folder(self, files: Mapping[str, str]) -> str:
        data = list_bytes(files)
        md5 = f"{md5_of(data)}.dir"
        self._put(md5, data)
        self.folders[md5] = dict(files)
        return md5

    def _put(self, md5: str, data: bytes) -> None:
        path = self.object_path(md5)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def object_path(self, md5: str) -> Path:
        return self.cache / md5[:2] / md5[2:]

    def drop(self, md5: str) -> None:
        """Lose an object."""
        self.object_path(md5).unlink()

    def write(self, path: str, data: bytes | str) -> None:
        self.tracked[path] = data.encode() if isinstance(data, str) else data

    def write_raw(self, path: str, files: Mapping[str, bytes]) -> None:
        """Raw data: its list, and the objects of what is small enough to matter."""
        self.raw[path] = self.store_folder(
            {name: md5_of(data) if name.endswith(".npz") else self.store(data) for name, data in files.items()}
        )

    def run(
        self,
        stage: str,
        deps: Iterable[str],
        outs: Mapping[str, Mapping[str, str] | bytes],
        params: Mapping[str, Any] | None = None,
        *,
        event: str = "ran",
        user: str = "Ada",
    ) -> None:
        """Note that a stage ran. outs: path -> a folder's files (name -> md5), or the bytes of a file in git."""
        made = {}
        for path, content in outs.items():
            if isinstance(content, bytes):
                self.write(path, content)
                made[path] = md5_of(content)
            else:
                made[path] = self.store_folder(content)
        name, _, item = stage.partition("@")
        stage = stage.replace("@", self.separator)
        read = {path: self.md5_at(path) for path in deps}
        self.ran[stage] = Ran(
            f"inbetween stage {name} {item}".strip(),
            read,
            {"params.yaml": dict(params or {}), "tools.yaml": dict(self.tools)},
            made,
        )
        line = {"stage": stage, "event": event, "outs": dict(sorted(made.items())), "rev": "0" * 40, "is_dirty": False}
        when = f"2026-01-{self.revision_number % 28 + 1:02d}T00:00:{len(self.record) % 60:02d}Z"
        line |= {"started": when, "finished": when, "seconds": 1.5, "user": user, "tools": self.tools}
        self.record.append(json.dumps(line, separators=(",", ":")))

    def md5_at(self, path: str) -> str:
        """What a stage that reads this path now would note."""
        if path in self.tracked:
            return md5_of(self.tracked[path])
        outs = {out: md5 for ran in self.ran.values() for out, md5 in ran.outs.items()} | self.raw
        if path in outs:
            return outs[path]
        for out, md5 in outs.items():
            if path.startswith(f"{out}/"):
                below = path[len(out) + 1 :]
                files = self.folders[md5]
                if below in files:
                    return files[below]
                inside = {n[len(below) + 1 :]: m for n, m in files.items() if n.startswith(f"{below}/")}
                assert inside, path
                return f"{md5_of(list_bytes(inside))}.dir"
        rows = {}
        for out, md5 in outs.items():
            if out.startswith(f"{path}/"):
                below = out[len(path) + 1 :]
                files = self.folders.get(md5)
                rows |= {below: md5} if files is None else {f"{below}/{n}": m for n, m in files.items()}
        assert rows, path
        return f"{md5_of(list_bytes(rows))}.dir"

    def lock_text(self) -> str:
        """dvc.lock as DVC writes it."""
        lines = ["schema: '2.0'", "stages:"]
        for stage, ran in self.ran.items():
            lines += [f"  {stage}:", f"    cmd: {ran.cmd}", "    deps:"]
            for path, md5 in sorted(ran.deps.items()):
                lines += _path_lines(path, md5)
            lines.append("    params:")
            for file, values in ran.params.items():
                if values:
                    lines.append(f"      {file}:")
                    lines += [f"        {key}: {json.dumps(value)}" for key, value in values.items()]
            lines.append("    outs:")
            for path, md5 in sorted(ran.outs.items()):
                lines += _path_lines(path, md5)
        return "\n".join(lines) + "\n"

    def files(self) -> dict[str, bytes]:
        """Everything that git is to hold now."""
        raw = "outs:\n" + "".join(f"- path: {path}\n  hash: md5\n  md5: {md5}\n" for path, md5 in self.raw.items())
        made = {"dvc.lock": self.lock_text().encode(), "data.dvc": raw.encode()}
        if self.record:
            made["lineage/runs.jsonl"] = ("\n".join(self.record) + "\n").encode()
        return self.tracked | made

    def save(self) -> None:
        """Write the work tree."""
        for path, data in self.files().items():
            target = self.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.is_file() or target.read_bytes() != data:
                target.write_bytes(data)

    def commit(self, message: str) -> str:
        self.save()
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        self.revision_number += 1
        return self.git("rev-parse", "HEAD")


def _path_lines(path: str, md5: str) -> list[str]:
    size = ["      size: 1000", "      nfiles: 3"] if md5.endswith(".dir") else ["      size: 1000"]
    return [f"    - path: {path}", "      hash: md5", f"      md5: {md5}", *size]


@dataclass
class Clip:
    """first, last: frames.  version: another one gives other bytes."""

    clip: str
    video: str
    split: str = "train"
    subject: str = "kim"
    first: int = 0
    last: int = 9
    version: int = 0


class Pipeline:
    """The project's stages over made-up batches, mocap subsets, renderers and renders."""

    def __init__(self, project: Project, code: Mapping[str, Sequence[str]] | None = None) -> None:
        """code: stage -> its code files; one each by default."""
        self.project = project
        self.code = code or {}
        self.batches: dict[str, dict[str, Clip]] = {}
        self.licences: dict[str, str] = {}
        self.motions: dict[str, dict[str, list[dict[str, str]]]] = {}  # subset -> file -> rows
        self._tables: dict[str, str] = {}
        project.write_raw("data/raw/embedded", {"no-model/README.md": b"none", "no-source/README.md": b"none"})

    def declare(self) -> None:
        """dvc.yaml, params.yaml and tools.yaml that fit what has run."""
        stages, params = {}, {}
        for name, ran in self.project.ran.items():
            keys: list[Any] = []
            for key, value in ran.params["params.yaml"].items():
                keys.append(key)
                head, _, rest = key.partition(".")
                if rest:
                    params.setdefault(head, {})[rest] = value
                else:
                    params.setdefault(head, {}).update(value)
            keys.append({"tools.yaml": sorted(self.project.tools)})
            outs = [{path: {"cache": False}} if not path.startswith("data/") else path for path in sorted(ran.outs)]
            stages[name] = {"cmd": ran.cmd, "deps": sorted(ran.deps), "params": keys, "outs": outs}
        for path, content in (
            ("dvc.yaml", {"stages": stages}),
            ("params.yaml", params),
            ("tools.yaml", self.project.tools),
        ):
            self.project.write(path, yaml.safe_dump(content, sort_keys=False))

    def _code(self, stage: str) -> list[str]:
        files = list(self.code.get(stage, [f"tasks/{stage}.py"]))
        for path in files:
            self.project.tracked.setdefault(path, f"# {path}\n".encode())
        return files

    def table(self, kind: str, clip: Clip, **facts: str) -> str:
        key = f"{kind} {clip} {facts}"
        if key not in self._tables:
            own = {"table": kind, "clip": clip.clip, "version": f"{clip.version} {clip.first}-{clip.last}", **facts}
            self._tables[key] = self.project.store(table_bytes(own))
        return self._tables[key]

    def write_catalogue(self, batch: str) -> None:
        clips = self.batches[batch]
        videos = dict.fromkeys(clip.video for clip in clips.values())
        rows = "".join(f"{v},youtube:{batch}{v},{self.licences.get(v, 'CC-BY-4.0')}\n" for v in videos)
        self.project.write(f"catalog/{batch}/videos.csv", "video,source,licence\n" + rows)
        rows = "".join(f"{c.clip},{c.video},{c.split},{c.subject},{c.first},{c.last},64,64\n" for c in clips.values())
        self.project.write(f"catalog/{batch}/clips.csv", "clip,video,split,subject,first,last,width,height\n" + rows)

    def run_batch(self, batch: str, key_steps: Sequence[int] = (4,)) -> None:
        """download, split, pose and the backgrounds."""
        self.write_catalogue(batch)
        project, clips = self.project, self.batches[batch]
        videos = dict.fromkeys(clip.video for clip in clips.values())
        manifest = [
            {
                "video": v, "file": f"{v}.mp4", "sha256": sha256_of(f"{batch}/{v}"), "size": 9, "status": "ok",
                "licence": self.licences.get(v, "CC-BY-4.0"), "source": f"youtube:{batch}{v}", "reason": None,
                "retrieved": "2026-01-02T03:04:05Z", "title": f"Title of {v}", "uploader": "Someone",
                "upload_date": "2020-01-01", "duration_s": 1.0, "source_licence": None,
            }
            for v in videos
        ]  # fmt: skip
        files = {f"{v}.mp4": project.store(f"{batch}/{v}".encode()) for v in videos}
        files["manifest.json"] = project.store(json.dumps(manifest).encode())
        catalogue = [f"catalog/{batch}/videos.csv", f"catalog/{batch}/clips.csv"]
        data = f"data/{batch}"
        project.run(
            f"download@{batch}", [catalogue[0], *self._code("download")], {f"{data}/videos": files}, {"download": {}}
        )
        self._by_clip(f"split@{batch}", batch, [*catalogue, f"{data}/videos"], f"{data}/clips", "clip", {"split": {}})
        raw = "data/raw/embedded/no-source"
        steps = {"pose": {}, f"batches.{batch}": {"key_steps": list(key_steps)}}
        self._by_clip(f"pose@{batch}", batch, [f"{data}/clips", raw], f"{data}/poses", "pose", steps)
        for step in key_steps:
            out = f"{data}/backgrounds-{step}"
            self._by_clip(
                f"background@{batch}-{step}", batch, [f"{data}/clips"], out, f"background-{step}", {"background": {}}
            )

    def _by_clip(self, stage: str, batch: str, deps: list[str], out: str, kind: str, params: dict[str, Any]) -> None:
        clips = self.batches[batch].values()
        files = {f"{clip.clip}.parquet": self.table(kind, clip, **self._facts(batch, clip)) for clip in clips}
        code = self._code(stage.partition("@")[0])
        self.project.run(stage, [*deps, *code], {out: files}, params)

    def _facts(self, batch: str, clip: Clip) -> dict[str, str]:
        return {
            "batch": batch, "video": clip.video, "split": clip.split, "subject": clip.subject,
            "source_sha256": sha256_of(f"{batch}/{clip.video}"),
        }  # fmt: skip

    def run_mocap(self, splits: Mapping[str, str], views: int = 1) -> None:
        """joints and views of every subset. splits: subset -> train or test."""
        project = self.project
        files: dict[str, bytes] = {"no-model/README.md": b"none", "no-source/README.md": b"none"}
        files["body_models/smplh/male/model.npz"] = b"a body"
        for subset, tables in self.motions.items():
            for rows in tables.values():
                for row in rows:
                    files[f"amass/{subset}/{row['subject']}/{row['sequence']}.npz"] = row["source_sha256"].encode()
        project.write_raw("data/raw/embedded", files)
        params = {"mocap": {subset: {"split": split} for subset, split in splits.items()}}
        for subset, tables in self.motions.items():
            for stage, out in (("joints", f"data/joints/{subset}"), ("views", f"data/views/{subset}")):
                made = {
                    f"{name}.parquet": project.store(motions_bytes(rows, {"table": stage, "subset": subset}, views))
                    for name, rows in tables.items()
                }
                deps = ["data/raw/embedded/body_models", f"data/raw/embedded/amass/{subset}"]
                deps = deps if stage == "joints" else [f"data/joints/{subset}"]
                project.run(f"{stage}@{subset}", [*deps, *self._code(stage)], {out: made}, {stage: {"seed": 1}})
        sequences = [
            row
            for subset, tables in self.motions.items()
            if splits[subset] == "train"
            for rows in tables.values()
            for row in rows
        ]
        provenance = {
            "network": "tangents", "sequences": [row | {"num_frames": 1} for row in sequences], "start": None,
            "licences": sorted({row["licence"] for row in sequences}),
        }  # fmt: skip
        model = {
            "model.safetensors": project.store(json.dumps(sequences).encode()[:64]),
            "config.json": project.store(b"{}"),
            "provenance.json": project.store(json.dumps(provenance).encode()),
        }
        deps = ["data/views", "data/raw/embedded/no-model", *self._code("train_motion")]
        project.run("train_motion", deps, {"data/models/motion": model}, {"train_motion": {"seed": 7}, **params})
        deps = ["data/views", "data/models/motion", *self._code("evaluate_motion")]
        outs = {
            "data/evaluations-motion": {"motion.mp4": project.store(b"film")},
            "metrics/motion.json": b'{"mae": 1}\n',
        }
        project.run("evaluate_motion", deps, outs, {"evaluate_motion": {"seed": 1}, **params})

    def run_renderer(self, name: str, batch: str, seed: int = 1) -> None:
        """samples and train_renderer, on the training clips of a batch."""
        project = self.project
        clips = [clip for clip in self.batches[batch].values() if clip.split == "train"]
        files = {f"{c.clip}.parquet": self.table("samples", c, **self._facts(batch, c)) for c in clips}
        deps = [f"data/{batch}/{part}" for part in ("clips", "poses", "backgrounds-4")]
        project.run(
            f"samples@{name}", [*deps, *self._code("samples")], {f"data/samples/{name}": files}, {"samples": {}}
        )
        rows = [
            self._facts(batch, c) | {"clip": c.clip, "licence": self.licences.get(c.video, "CC-BY-4.0"), "num_keys": 3}
            for c in clips
        ]
        provenance = {"clips": rows, "licences": sorted({row["licence"] for row in rows}), "vgg_sha256": None}
        model = {
            "model.safetensors": project.store(f"{seed} {sorted(files.items())}".encode()),
            "config.json": project.store(b"{}"),
            "provenance.json": project.store(json.dumps(provenance).encode()),
        }
        deps = [f"data/samples/{name}", f"catalog/{batch}/videos.csv", "data/raw/embedded/no-model"]
        metrics = {f"metrics/train_renderer/{name}/metrics.json": f'{{"seed": {seed}}}\n'.encode()}
        outs = {f"data/models/renderer/{name}": model, **metrics}
        params = {"train_renderer": {"seed": seed}}
        project.run(f"train_renderer@{name}", [*deps, *self._code("train_renderer")], outs, params)

    def run_render(self, name: str, batch: str, renderer: str = "", motion: str = "", crf: int = 16) -> None:
        """render and evaluate, of the test clips of a batch."""
        project = self.project
        clips = [clip for clip in self.batches[batch].values() if clip.split == "test"]
        none = "data/raw/embedded/no-model"
        models = [motion or none, f"data/models/renderer/{renderer}" if renderer else none]
        made = " ".join([str(crf), *(project.md5_at(model) for model in models)])
        facts = {"render": name, "made": made}
        files = {f"{c.clip}.parquet": self.table("render", c, **self._facts(batch, c), **facts) for c in clips}
        files |= {f"{c.clip}.mp4": project.store(f"{name} {made} {c}".encode()) for c in clips}
        deps = [f"data/{batch}/{part}" for part in ("clips", "poses", "backgrounds-4")]
        params = {"render": {"crf": crf}, f"renders.{name}": {"batch": batch, "split": "test"}}
        deps = list(dict.fromkeys([*deps, *models, *self._code("render")]))
        project.run(f"render@{name}", deps, {f"data/renders/{name}": files}, params)
        files = {f"{c.clip}.parquet": self.table("evaluation", c, **facts) for c in clips}
        deps = [f"data/{batch}/clips", f"data/{batch}/poses", f"data/renders/{name}", *self._code("evaluate")]
        metrics = {f"metrics/render/{name}.json": (json.dumps({"made": made, "clips": sorted(files)}) + "\n").encode()}
        project.run(f"evaluate@{name}", deps, {f"data/evaluations/{name}": files, **metrics}, {"evaluate": {}})

    def run_report(self) -> None:
        deps = ["data/renders", "data/evaluations", "metrics/render", *self._code("report")]
        if "train_motion" in self.project.ran:
            deps += ["data/models/motion/provenance.json", "metrics/motion.json"]
        md5s = "".join(self.project.md5_at(path) for path in deps)
        files = {"index.html": md5_of(md5s.encode())}
        name, out = "report", "report"
        self.project.run(name, deps, {out: files}, {"report": {}})


def motion_rows(subset: str, subjects: Mapping[str, int], licence: str = "CMU") -> dict[str, list[dict[str, str]]]:
    """File -> rows, a file a subject. subjects: name -> how many motions."""
    return {
        f"{subject}-000": [
            {
                "subset": subset, "subject": f"set/{subject}", "sequence": f"{subject}_{number:05d}",
                "licence": licence, "source_sha256": sha256_of(f"{subset}/{subject}/{number}"),
            }
            for number in range(count)
        ]
        for subject, count in subjects.items()
    }  # fmt: skip


def small_project(root: Path) -> Pipeline:
    """Two batches of one trained and one tested video each, mocap, a renderer on batch one, a render with it."""
    pipeline = Pipeline(Project(root))
    for batch, prefix in (("one", "a"), ("two", "b")):
        pipeline.batches[batch] = {
            f"{prefix}{n}": Clip(f"{prefix}{n}", f"{prefix}-{split}", split, f"{prefix}{split}", 10 * n, 10 * n + 9)
            for n, split in enumerate(("train", "train", "test"), start=1)
        }  # fmt: skip
        pipeline.run_batch(batch)
    pipeline.motions = {
        "walks": motion_rows("walks", {"kim": 2, "lee": 1}),
        "jumps": motion_rows("jumps", {"mo": 2}),
    }
    pipeline.run_mocap({"walks": "train", "jumps": "test"})
    pipeline.run_renderer("first", "one")
    pipeline.run_render("plain", "one")
    pipeline.run_render("painted", "two", renderer="first")
    pipeline.run_render("moved", "one", motion="data/models/motion")
    pipeline.run_report()
    pipeline.declare()
    pipeline.project.commit("everything")
    return pipeline
