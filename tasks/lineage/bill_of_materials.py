"""A checkpoint's bill of materials in CycloneDX 1.6 (JSON): model card, training data, given weights, code, tools.

Written by hand: the library that validates it has no classes for model cards. Its time is that of the record, and its
serial number is made from its contents.
"""

import json
from collections.abc import Mapping
from typing import Any

from tasks.lineage.errors import LineageError
from tasks.lineage.graph import Artefact
from tasks.lineage.licences import judge_sources
from tasks.lineage.lineage import Lineage
from tasks.lineage.recorded import upstream_as_recorded
from tasks.lineage.sources import PROJECT, code_url, members_of, one_artefact, producer, spdx_of, stable_uuid
from tasks.lineage.upstream import MotionFacts, StageFacts, Upstream, VideoFacts

_WEIGHTS = "model.safetensors"
_RECORDED = ("event", "rev", "is_dirty", "user", "started", "finished", "run")
_TASKS = {
    "motion": ("in-betweening of human motion", "2D joints of key poses", "2D joints of the frames between"),
    "renderer": ("pose-guided image synthesis", "pose labels and a background picture", "a picture of the person"),
}


def make_bill(
    lineage: Lineage, name: str, rev: str | None = None, *, repository: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """The bill of a checkpoint, and what it leaves open.

    Raises: LineageError where the name means no checkpoint, or no place has the list of its files.
    """
    _, artefact = one_artefact(lineage, name, rev, "one checkpoint")
    path = "/".join(filter(None, [artefact.out.path, artefact.below]))
    files = dict(members_of(lineage.graph, artefact))
    member, content = lineage.graph.provenance(artefact.out.md5, artefact.below)
    if member is None:
        raise LineageError(
            f"{name}: is no checkpoint: {path} has no provenance.json; `--format croissant` is for data folders"
        )
    provenance = content.facts if content and content.kind == "checkpoint" else {}
    answer = upstream_as_recorded(lineage, path, rev)
    data = [*map(_video, answer.videos), *_recordings(answer.motions), *_raw(answer)]
    tools = [_tool(tool, version) for tool, version in _tools(answer).items()]
    code = [_code(file, md5s[0]) for file, md5s in answer.code.items()]
    trained = next((stage for stage in answer.stages if artefact.out.path in stage.outs), None)
    model = _model(path, artefact, files, provenance, answer, [row["bom-ref"] for row in data])
    if trained and trained.rev:
        url = code_url(repository, trained.rev, "dvc.yaml")
        model["externalReferences"] = [{"type": "vcs", "url": url}]
    bill: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            **({"timestamp": trained.finished} if trained and trained.finished else {}),
            "tools": {
                "components": [{"type": "application", "name": PROJECT, "version": producer().partition("@")[2]}]
            },
            "component": model,
        },
        "components": [*data, *tools, *code],
        "dependencies": [
            {"ref": model["bom-ref"], "dependsOn": sorted(row["bom-ref"] for row in [*data, *tools, *code])},
        ],
        "properties": _properties(answer, trained),
    }
    serial = stable_uuid("bill", json.dumps(bill, sort_keys=True))
    return {
        "bomFormat": bill.pop("bomFormat"),
        "specVersion": bill.pop("specVersion"),
        "serialNumber": f"urn:uuid:{serial}",
        **bill,
    }, (answer.open)


def _model(
    path: str,
    artefact: Artefact,
    files: Mapping[str, str],
    provenance: Mapping[str, Any],
    answer: Upstream,
    data: list[str],
) -> dict[str, Any]:
    kind = "renderer" if "/renderer/" in f"{path}/" else "motion"
    task, given, made = _TASKS[kind]
    network = provenance.get("network") or ("generator" if "generator" in provenance else kind)
    judged = judge_sources(answer)
    metrics = [
        {"type": key, "value": str(value)} for key, value in sorted(_numbers(provenance.get("metrics") or {}).items())
    ]
    card: dict[str, Any] = {
        "modelParameters": {
            "approach": {"type": "supervised" if kind == "renderer" else "self-supervised"},
            "task": task,
            "modelArchitecture": str(network),
            "datasets": [{"ref": ref} for ref in data],
            "inputs": [{"format": given}],
            "outputs": [{"format": made}],
        },
        **({"quantitativeAnalysis": {"performanceMetrics": metrics}} if metrics else {}),
        "considerations": {
            "technicalLimitations": [
                f"Commercial use by the licences of its sources: {judged.verdict}"
                + ("" if answer.is_complete else "; a source may be missing from this bill")
            ]
        },
    }
    hashes = [{"alg": "MD5", "content": files[_WEIGHTS]}] if _WEIGHTS in files else []
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{path}",
        "name": path,
        "version": artefact.out.md5,
        **({"hashes": hashes} if hashes else {}),
        "modelCard": card,
        "properties": [_property(f"file:{name}", f"md5:{md5}") for name, md5 in sorted(files.items())],
    }


def _video(video: VideoFacts) -> dict[str, Any]:
    roles = ", ".join(f"training of {role}" if role else "training" for role in video.roles)
    return {
        "type": "data",
        "bom-ref": f"video:{video.batch}/{video.video}",
        **({"author": video.uploader} if video.uploader else {}),
        "name": f"{video.batch}/{video.video}",
        **({"description": video.title} if video.title else {}),
        **({"hashes": [{"alg": "SHA-256", "content": video.sha256}]} if video.sha256 else {}),
        **_licences([licence for licence in (video.licence, video.source_licence) if licence]),
        **({"externalReferences": [{"type": "distribution", "url": video.url}]} if video.url else {}),
        "data": [{"type": "dataset", "name": video.video, **({"contents": {"url": video.url}} if video.url else {})}],
        "properties": [
            *([_property("retrieved", video.retrieved)] if video.retrieved else []),
            *([_property("role", roles)] if roles else []),
            *(_property(f"clip:{clip.clip}", f"frames {clip.frames} ({clip.split})") for clip in video.clips),
        ],
    }


def _recordings(motions: list[MotionFacts]) -> list[dict[str, Any]]:
    """A component a subset and licence, each recording with its hash among its properties."""
    groups: dict[tuple[str, str], list[MotionFacts]] = {}
    for motion in motions:
        groups.setdefault((motion.subset, motion.licence), []).append(motion)
    return [
        {
            "type": "data",
            "bom-ref": f"recordings:{subset}:{licence}",
            "name": f"recordings {subset}",
            "description": f"{len(rows)} recordings of motion",
            **_licences([licence] if licence else []),
            "data": [{"type": "dataset", "name": subset}],
            "properties": [
                _property(f"recording:{row.subject}/{row.sequence}", f"sha256:{row.source_sha256}") for row in rows
            ],
        }
        for (subset, licence), rows in sorted(groups.items())
    ]


def _raw(answer: Upstream) -> list[dict[str, Any]]:
    rows = []
    for raw in answer.raw:
        row: dict[str, Any] = {
            "type": "machine-learning-model" if raw.kind == "weights" else "data",
            "bom-ref": f"raw:{raw.path}",
            "name": raw.path,
            "version": raw.md5,
            "description": raw.kind,
            **_licences(raw.licences),
        }
        if raw.kind != "weights":
            row["data"] = [{"type": "dataset", "name": raw.path}]
        rows.append(row)
    return rows


def _tools(answer: Upstream) -> dict[str, str]:
    """Tool and version -> version, of every stage: two stages may have run with two."""
    found = {(tool, str(version)) for stage in answer.stages for tool, version in stage.tools.items()}
    return {f"{tool}@{version}": version for tool, version in sorted(found)}


def _tool(key: str, version: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": f"tool:{key}", "name": key.removesuffix(f"@{version}"), "version": version}


def _code(path: str, md5: str) -> dict[str, Any]:
    return {"type": "file", "bom-ref": f"code:{path}", "name": path, "hashes": [{"alg": "MD5", "content": md5}]}


def _licences(names: list[str]) -> dict[str, Any]:
    rows = [{"license": {"id": spdx} if (spdx := spdx_of(name)) else {"name": name}} for name in dict.fromkeys(names)]
    return {"licenses": rows} if rows else {}


def _properties(answer: Upstream, trained: StageFacts | None) -> list[dict[str, str]]:
    rows = [_property("complete", "yes" if answer.is_complete else "no")]
    if trained:
        rows.append(_property("stage", trained.stage))
        facts = ((name, getattr(trained, name)) for name in _RECORDED)
        rows += [_property(name, str(value)) for name, value in facts if value is not None]
        rows += [_property(f"seed:{key}", str(value)) for key, value in sorted(trained.seeds.items())]
        rows += [
            _property(f"param:{file}:{key}", json.dumps(value))
            for file, values in sorted(trained.params.items())
            for key, value in sorted(values.items())
        ]
    return [*rows, *(_property("open", line) for line in answer.open)]


def _property(name: str, value: str) -> dict[str, str]:
    return {"name": f"inbetween:{name}", "value": value}


def _numbers(values: Mapping[str, Any], path: str = "") -> dict[str, float]:
    """Dotted key -> number."""
    found: dict[str, float] = {}
    for key, value in values.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            found |= _numbers(value, name)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
    return found
