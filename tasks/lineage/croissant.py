"""A data folder's card in Croissant 1.0 (JSON-LD): files by md5, columns of tables, what it was made from and how.

The card is written for the folder itself: its addresses are relative, so it is read where it lies beside the files, and
the same folder has the same card in every clone.
"""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from tasks.lineage.licences import judge_sources
from tasks.lineage.lineage import Lineage
from tasks.lineage.places import Places
from tasks.lineage.recorded import upstream_as_recorded
from tasks.lineage.sources import (
    PROJECT,
    URN,
    Column,
    code_url,
    columns_of,
    members_of,
    one_artefact,
    producer,
    spdx_of,
)
from tasks.lineage.upstream import MotionFacts, StageFacts, Upstream, VideoFacts

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
_CR, _SC = "http://mlcommons.org/croissant/", "https://schema.org/"
_OWN_TERMS = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
    "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
_FORMATS = {
    ".parquet": "application/x-parquet", ".json": "application/json", ".mp4": "video/mp4", ".png": "image/png",
    ".csv": "text/csv", ".html": "text/html", ".npz": "application/zip", ".tsv": "text/tab-separated-values",
}  # fmt: skip


def make_card(
    lineage: Lineage, name: str, rev: str | None = None, *, repository: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """The card of an output folder or of raw data, and what it leaves open.

    Raises: LineageError where the name is none of a folder, or no place has the list of its files.
    """
    _, artefact = one_artefact(lineage, name, rev, "one data folder")
    answer = upstream_as_recorded(
        lineage, artefact_path := "/".join(filter(None, [artefact.out.path, artefact.below])), rev
    )
    members = members_of(lineage.graph, artefact)
    made = next((stage for stage in answer.stages if artefact.out.path in stage.outs), None)
    card: dict[str, Any] = {
        "@context": _context(),
        "@type": "sc:Dataset",
        "name": artefact_path.removeprefix("data/").replace("/", "-"),
        "description": _describe(artefact_path, len(members), made, answer),
        "conformsTo": CONFORMS_TO,
        "identifier": f"{URN}:md5:{artefact.out.md5}" + (f"#{artefact.below}" if artefact.below else ""),
        "version": f"0.0.0+{artefact.out.md5[:12]}",
        "license": _licences(answer),
        "creator": {"@type": "sc:Organization", "name": PROJECT},
        "citeAs": f"{PROJECT}, {artefact_path}, md5 {artefact.out.md5}",
    }
    if repository:
        card["url"] = repository
    if made and made.finished:
        card["datePublished"] = made.finished
    card["distribution"] = [*_files(members), *_file_sets(members)]
    card["recordSet"] = _record_sets(lineage.places, members)
    card["prov:wasDerivedFrom"] = [*map(_video, answer.videos), *_motions(answer.motions), *_raw(answer)]
    card["prov:wasGeneratedBy"] = [_activity(stage, repository) for stage in answer.stages]
    card["prov:wasAttributedTo"] = {"@type": "prov:SoftwareAgent", "name": producer()}
    judged = judge_sources(answer)
    card["usageInfo"] = f"Commercial use: {judged.verdict}" + (
        "" if answer.is_complete else "; a source may be missing"
    )
    return {key: value for key, value in card.items() if value not in ([], None)}, answer.open


def _context() -> dict[str, Any]:
    """The terms that Croissant 1.0 asks for, and PROV's."""
    context: dict[str, Any] = {
        "@language": "en",
        "@vocab": _SC,
        "sc": _SC,
        "cr": _CR,
        "dct": "http://purl.org/dc/terms/",
    }
    context |= {"rai": f"{_CR}RAI/", "conformsTo": "dct:conformsTo"}
    context |= {term: f"cr:{term}" for term in _OWN_TERMS}
    context |= {term: {"@id": f"cr:{term}", "@type": "@json"} for term in ("data", "examples")}
    context["dataType"] = {"@id": "cr:dataType", "@type": "@vocab"}
    context["prov"] = "http://www.w3.org/ns/prov#"
    return dict(sorted(context.items()))


def _describe(path: str, num_files: int, made: StageFacts | None, answer: Upstream) -> str:
    by = f" written by stage {made.stage} (`{made.cmd}`)" if made else ""
    parts = [f"{path}: {num_files} files{by}."]
    if answer.videos:
        parts.append(f"Made from {len(answer.videos)} videos.")
    if answer.motions:
        parts.append(f"Made from {len(answer.motions)} recordings of motion.")
    return " ".join(parts)


def _licences(answer: Upstream) -> list[str]:
    """The sources' licences, each once: SPDX's address where it has one, else the words that are on record."""
    names = {parent.licence for parent in judge_sources(answer).parents}
    return sorted(f"https://spdx.org/licenses/{spdx}" if (spdx := spdx_of(name)) else name for name in names)


def _files(members: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentUrl": name,
            "encodingFormat": _format(name),
            "md5": md5,
        }
        for name, md5 in members
    ]


def _format(name: str) -> str:
    return _FORMATS.get(PurePosixPath(name).suffix, "application/octet-stream")


def _file_sets(members: list[tuple[str, str]]) -> list[dict[str, Any]]:
    folders = dict.fromkeys(PurePosixPath(name).parent.as_posix() for name, _ in members if name.endswith(".parquet"))
    return [
        {
            "@type": "cr:FileSet",
            "@id": _set_name(folder),
            "name": _set_name(folder),
            "encodingFormat": _FORMATS[".parquet"],
            "includes": "*.parquet" if folder == "." else f"{folder}/*.parquet",
        }
        for folder in folders
    ]


def _set_name(folder: str) -> str:
    return "tables" if folder == "." else f"tables-{folder.replace('/', '-')}"


def _record_sets(places: Places, members: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """One a folder of tables that can be read; its tables are alike."""
    found: dict[str, tuple[Column, ...]] = {}
    for name, md5 in members:
        folder = PurePosixPath(name).parent.as_posix()
        if name.endswith(".parquet") and not found.get(folder):
            found[folder] = columns_of(places, md5)
    sets = []
    for folder, columns in found.items():
        key = "rows" if folder == "." else f"rows-{folder.replace('/', '-')}"
        fields = [_field(key, _set_name(folder), column) for column in columns]
        if fields:
            sets.append({"@type": "cr:RecordSet", "@id": key, "name": key, "field": fields})
    return sets


def _field(record_set: str, file_set: str, column: Column) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": file_set}, "extract": {"column": column.name}}
    is_picture = {inner.name for inner in column.fields} == {"bytes", "path"}
    if is_picture:
        source["transform"] = {"jsonPath": "bytes"}
    field: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{record_set}/{column.name}",
        "name": column.name,
        "dataType": "sc:ImageObject" if is_picture else _data_type(column.type),
        "source": source,
    }
    if "list<" in column.type:
        field["repeated"] = True
    return field


def _data_type(name: str) -> str:
    inner = name.partition("<")[2] if "<" in name else name
    if "int" in inner:
        return "sc:Integer"
    if "float" in inner or "double" in inner:
        return "sc:Float"
    return "sc:Boolean" if "bool" in inner else "sc:Text"


def _video(video: VideoFacts) -> dict[str, Any]:
    facts = {
        "@type": ["prov:Entity", "sc:VideoObject"],
        "@id": f"{URN}:video:{video.batch}/{video.video}",
        "name": video.title or video.video,
        "url": video.url,
        "creator": video.uploader,
        "uploadDate": video.upload_date,
        "license": video.licence,
        "sc:sha256": video.sha256,
        "sc:accessed": video.retrieved,
        "sc:temporalCoverage": "; ".join(f"{clip.clip}: frames {clip.frames}" for clip in video.clips) or None,
        "prov:hadRole": [role for role in video.roles if role] or None,
    }
    return {key: value for key, value in facts.items() if value}


def _motions(motions: Iterable[MotionFacts]) -> list[dict[str, Any]]:
    """By subset and licence: the tables themselves name each recording with its hash."""
    numbers: dict[tuple[str, str], int] = {}
    for motion in motions:
        numbers[motion.subset, motion.licence] = numbers.get((motion.subset, motion.licence), 0) + 1
    return [
        {
            "@type": ["prov:Entity", "sc:CreativeWork"],
            "@id": f"{URN}:recordings:{subset}" + (f":{licence}" if licence else ""),
            "name": subset,
            "description": f"{number} recordings of motion",
            "license": licence or "not told",
        }
        for (subset, licence), number in sorted(numbers.items())
    ]


def _raw(answer: Upstream) -> list[dict[str, Any]]:
    rows = []
    for raw in answer.raw:
        row = {
            "@type": ["prov:Entity", "sc:CreativeWork"],
            "@id": f"{URN}:{raw.path}",
            "name": raw.path,
            "description": raw.kind,
        }
        rows.append(row | {"version": raw.md5} | ({"license": raw.licences} if raw.licences else {}))
    return rows


def _activity(stage: StageFacts, repository: str) -> dict[str, Any]:
    facts = {
        "@type": "prov:Activity",
        "@id": f"{URN}:stage:{stage.stage}",
        "name": stage.stage,
        "description": stage.cmd,
        "prov:startedAtTime": stage.started,
        "prov:endedAtTime": stage.finished,
        "prov:wasAssociatedWith": stage.user,
        "prov:used": code_url(repository, stage.rev, "dvc.yaml") if stage.rev else None,
        "prov:generated": [f"{URN}:{path}@{md5}" for path, md5 in sorted(stage.outs.items())],
        "sc:softwareRequirements": [f"{tool} {version}" for tool, version in sorted(stage.tools.items())] or None,
    }
    return {key: value for key, value in facts.items() if value}
