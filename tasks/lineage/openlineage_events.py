"""The record as OpenLineage events: a START and a COMPLETE for each run, restored ones included.

The same bytes for the same revision: a run's id is made from its line of the record, and its times are that line's.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from openlineage.client import facet_v2 as standard
from openlineage.client.generated.base import (
    DatasetFacet,
    EventType,
    InputDataset,
    Job,
    JobFacet,
    OutputDataset,
    OutputDatasetFacet,
    Run,
    RunEvent,
    RunFacet,
)
from openlineage.client.serde import Serde

from tasks.lineage import runs as record
from tasks.lineage.errors import LineageError
from tasks.lineage.facets import InbetweenChecksumDatasetFacet, InbetweenLicenceDatasetFacet, InbetweenRunFacet
from tasks.lineage.graph import Artefact, State, is_code
from tasks.lineage.licences import judge_sources
from tasks.lineage.lineage import Lineage
from tasks.lineage.lock import Entry, FileRef
from tasks.lineage.recorded import RecordedRun, read_record
from tasks.lineage.sources import Column, code_url, columns_of_output, producer, stable_uuid
from tasks.lineage.upstream import Walk

NAMESPACE = "inbetween"
_MODELS = "data/models/"


class Events(NamedTuple):
    """notes: what they leave open."""

    events: list[RunEvent]
    notes: list[str]


def make_events(
    lineage: Lineage, rev: str | None = None, thing: str = "", *, repository: str = "", namespace: str = NAMESPACE
) -> Events:
    """The events of a revision's record, in its order.

    Args: thing: only the runs that made it and what it was made from.  repository: git's URL; "" = not told.
    Raises: LineageError for an unknown revision or thing.
    """
    found = read_record(lineage, rev)
    notes, runs = list(found.notes), found.runs
    if thing:
        made = {(stage.stage, tuple(sorted(stage.outs.items()))) for stage in lineage.upstream(thing, rev).stages}
        runs = [row for row in runs if (row.run.stage, tuple(sorted(row.run.outs.items()))) in made]
    timed = [row for row in runs if row.run.started or row.run.finished]
    if len(timed) < len(runs):
        notes.append(f"{len(runs) - len(timed)} lines of the record tell no time: left out, OpenLineage asks for one")
    writer = _Writer(lineage, lineage.state(rev), repository, namespace)
    events = [event for row in timed for event in writer.events(row)]
    return Events(events, notes)


def to_lines(events: Iterable[RunEvent]) -> Iterable[str]:
    """An event a line, keys sorted, by the client's own serialiser."""
    return (Serde.to_json(event) for event in events)


def _run_id(run: record.Run) -> str:
    return stable_uuid("run", run.to_line())


class _Writer:
    def __init__(self, lineage: Lineage, state: State, repository: str, namespace: str) -> None:
        self.lineage, self.graph, self.state = lineage, lineage.graph, state
        self.repository, self.namespace = repository, namespace
        self.producer = producer()
        self._ran: dict[tuple[str, tuple[tuple[str, str], ...]], str] = {}
        self._columns: dict[str, tuple[Column, ...]] = {}
        self._licences: dict[tuple[Artefact, ...], InbetweenLicenceDatasetFacet] = {}

    def events(self, row: RecordedRun) -> list[RunEvent]:
        run, entry = row.run, row.entry
        run_facets = self._run_facets(row)
        job = Job(self.namespace, run.stage, facets=self._job_facets(row))
        deps = [dep for dep in entry.deps if not is_code(dep.path)] if entry else []
        sizes = {out.path: out for out in entry.outs} if entry else {}
        outs = [sizes.get(path) or FileRef(path, md5) for path, md5 in sorted(run.outs.items())]
        start, end = run.started or run.finished, run.finished or run.started
        assert start is not None
        assert end is not None

        def event(kind: EventType, time: str, **datasets: Any) -> RunEvent:  # noqa: ANN401 inputs and outputs
            return RunEvent(
                eventType=kind,
                eventTime=time,
                producer=self.producer,
                job=job,
                run=Run(_run_id(run), run_facets),
                **datasets,
            )

        inputs = [InputDataset(self.namespace, dep.path, facets=self._input_facets(dep)) for dep in deps]
        outputs = [
            OutputDataset(
                self.namespace,
                out.path,
                facets=self._facets(out) | self._licence_facet([Artefact(out, row.id)] if row.id is not None else []),
                outputFacets=self._output_facets(out),
            )
            for out in outs
        ]
        return [
            event(EventType.START, start, inputs=inputs),
            event(EventType.COMPLETE, end, inputs=inputs, outputs=outputs),
        ]

    def _run_facets(self, row: RecordedRun) -> dict[str, RunFacet]:
        run, entry = row.run, row.entry
        key = (run.stage, tuple(sorted(run.outs.items())))
        if run.event == "ran":
            self._ran[key] = _run_id(run)
        facets: dict[str, RunFacet] = {
            "inbetween_run": InbetweenRunFacet(
                event=run.event,
                inputsKnown=entry is not None,
                revision=run.rev,
                isDirty=run.is_dirty,
                user=run.user,
                seconds=run.seconds,
                command=entry.cmd if entry else None,
                originalRunId=self._ran.get(key) if run.event == "restored" else None,
                tools=run.tools,
                platform=run.platform,
                code={dep.path: dep.md5 for dep in entry.deps if is_code(dep.path)} if entry else None,
                producer=self.producer,
            )
        }
        if entry and (values := _flat_params(entry)):
            parameters = [standard.execution_parameters_run.ExecutionParameter(key, value=v) for key, v in values]
            facets["executionParameters"] = standard.execution_parameters_run.ExecutionParametersRunFacet(
                parameters, producer=self.producer
            )
        if run.run and _is_uuid(run.run):
            facets["parent"] = standard.parent_run.ParentRunFacet(
                standard.parent_run.Run(run.run),
                standard.parent_run.Job(self.namespace, "prefect-flow"),
                producer=self.producer,
            )
        return facets

    def _job_facets(self, row: RecordedRun) -> dict[str, JobFacet]:
        facets: dict[str, JobFacet] = {
            "jobType": standard.job_type_job.JobTypeJobFacet("BATCH", "DVC", jobType="STAGE", producer=self.producer)
        }
        if row.run.rev:
            codes = [dep.path for dep in row.entry.deps if dep.path.startswith("flows/stages/")] if row.entry else []
            path = codes[0] if len(codes) == 1 else "dvc.yaml"
            facets["sourceCodeLocation"] = standard.source_code_location_job.SourceCodeLocationJobFacet(
                type="git",
                url=code_url(self.repository, row.run.rev, path),
                repoUrl=self.repository or None,
                path=path,
                version=row.run.rev,
                producer=self.producer,
            )
        return facets

    def _input_facets(self, dep: FileRef) -> dict[str, DatasetFacet]:
        facets = self._facets(dep)
        artefacts, _ = self.graph.artefacts(self.state, dep)
        raw = [artefact for artefact in artefacts if artefact.entry is None]
        return facets | self._licence_facet(raw)

    def _facets(self, ref: FileRef) -> dict[str, DatasetFacet]:
        is_folder = ref.md5.endswith(".dir")
        kind = "MODEL" if ref.path.startswith(_MODELS) else "FILE"
        facets: dict[str, DatasetFacet] = {
            "version": standard.dataset_version_dataset.DatasetVersionDatasetFacet(ref.md5, producer=self.producer),
            "datasetType": standard.dataset_type_dataset.DatasetTypeDatasetFacet(kind, producer=self.producer),
            "inbetween_checksum": InbetweenChecksumDatasetFacet(
                algorithm="md5",
                value=ref.md5.removesuffix(".dir"),
                kind="folder" if is_folder else "file",
                size=ref.size or None,
                numFiles=ref.num_files or None,
                producer=self.producer,
            ),
        }
        if ref.md5 not in self._columns:
            self._columns[ref.md5] = columns_of_output(self.graph, self.lineage.places, ref)
        if columns := self._columns[ref.md5]:
            fields = [_field(column, place) for place, column in enumerate(columns, start=1)]
            facets["schema"] = standard.schema_dataset.SchemaDatasetFacet(fields, producer=self.producer)
        return facets

    def _output_facets(self, out: FileRef) -> dict[str, OutputDatasetFacet]:
        if not out.size:
            return {}
        return {
            "outputStatistics": standard.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                size=out.size, fileCount=out.num_files or 1, producer=self.producer
            )
        }

    def _licence_facet(self, artefacts: Sequence[Artefact]) -> dict[str, DatasetFacet]:
        """Of an output or of raw data; nothing where it is not known what it was made from, or nothing was."""
        key = tuple(artefacts)
        if not artefacts:
            return {}
        if key not in self._licences:
            walk = Walk(self.graph, self.state)
            for artefact in artefacts:
                walk.start(artefact)
            answer = walk.answer("")
            judged = judge_sources(answer)
            rows = [
                {
                    "kind": p.kind,
                    "name": p.name,
                    "licence": p.licence,
                    "verdict": p.verdict,
                    "duty": p.duty,
                    "number": p.number,
                }
                for p in judged.parents
            ]
            self._licences[key] = InbetweenLicenceDatasetFacet(
                judged.is_allowed, judged.verdict, answer.is_complete, rows, producer=self.producer
            )
        facet = self._licences[key]
        return {"inbetween_licence": facet} if facet.sources else {}


def send(events: Sequence[RunEvent], url: str, *, api_key: str = "", timeout_s: float = 10.0) -> None:
    """Post the events to an OpenLineage server, in order.

    Args: url: with a path, the whole endpoint; without, api/v1/lineage of it.
    Raises: LineageError that says how many it took. Sending again does no harm: the run ids are the same.
    """
    from urllib.parse import urlsplit

    import requests
    from openlineage.client.transport.http import HttpConfig, HttpTransport

    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"  # no password
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise LineageError(f"--url {url}: is no http address; write http://HOST:PORT or https://HOST/PATH")
    config: dict[str, Any] = {"url": f"{parts.scheme}://{parts.netloc}", "timeout": timeout_s, "retry": {"total": 2}}
    if parts.path.strip("/"):
        config["endpoint"] = parts.path.lstrip("/") + (f"?{parts.query}" if parts.query else "")
    if api_key:
        config["auth"] = {"type": "api_key", "apiKey": api_key}
    transport = HttpTransport(HttpConfig.from_dict(config))
    try:
        for number, event in enumerate(events):
            try:
                transport.emit(event)
            except (requests.RequestException, OSError) as error:
                raise LineageError(
                    f"--url {shown}: took {number} of {len(events)} events, then failed ({_brief(error)}); run it again"
                    " when it answers: the same events have the same ids"
                ) from error
    finally:
        transport.close()


def _brief(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"status {response.status_code}"
    return "no answer" if "Max retries" in str(error) or "refused" in str(error) else type(error).__name__


def _field(column: Column, place: int) -> standard.schema_dataset.SchemaDatasetFacetFields:
    inner = [_field(below, number) for number, below in enumerate(column.fields, start=1)]
    return standard.schema_dataset.SchemaDatasetFacetFields(
        column.name, column.type, ordinal_position=place, fields=inner or None
    )


def _flat_params(entry: Entry) -> list[tuple[str, str]]:
    """(file:dotted key, value as JSON), tools left out: the run's own facet has them."""
    from tasks.lineage.changes import flatten

    rows = []
    for file, values in entry.params().items():
        if file != "tools.yaml":
            rows += [(f"{file}:{key}", json.dumps(value, default=str)) for key, value in flatten(values).items()]
    return sorted(rows)


def _is_uuid(text: str) -> bool:
    try:
        return bool(UUID(text))
    except ValueError:
        return False
