"""What is handed out about a made-up project: OpenLineage events, Croissant cards, CycloneDX bills."""

import io
import json
import os
import subprocess
from pathlib import Path

import jsonschema
import pytest

from flows.lineage import open_lineage
from tasks.lineage.bill_of_materials import make_bill
from tasks.lineage.croissant import make_card
from tasks.lineage.errors import LineageError
from tasks.lineage.openlineage_events import make_events, to_lines
from tasks.lineage.sources import to_text
from tests.lineage_project import Clip, Pipeline, list_bytes, md5_of, small_project
from tests.openlineage_schema import SCHEMAS, errors_of, facets_of, spec_errors

# The specification's own files (spec/ of its repository), where a developer or CI has them.
SPEC = Path(os.environ.get("OPENLINEAGE_SPEC", Path(__file__).parents[3] / "shared/openlineage/spec"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Pipeline:
    pipeline = small_project(tmp_path_factory.mktemp("export") / "project")
    pipeline.project.git("tag", "v1")
    return pipeline


@pytest.fixture(scope="module")
def lineage(whole):
    return ask(whole)


@pytest.fixture(scope="module")
def events(lineage) -> list[dict]:
    return events_of(lineage)


def ask(pipeline: Pipeline):
    root = pipeline.project.root
    return open_lineage(root, root / ".inbetween/lineage.sqlite")


def events_of(lineage, *words, **options) -> list[dict]:
    return [json.loads(line) for line in to_lines(make_events(lineage, *words, **options).events)]


def of_job(events: list[dict], job: str) -> list[dict]:
    return [event for event in events if event["job"]["name"] == job]


def test_every_run_of_the_record_starts_and_completes(whole, events):
    stages = [json.loads(line)["stage"] for line in whole.project.record]
    assert [e["job"]["name"] for e in events if e["eventType"] == "COMPLETE"] == stages
    for start, end in zip(events[::2], events[1::2], strict=True):
        assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
        assert start["run"]["runId"] == end["run"]["runId"]
    assert len({event["run"]["runId"] for event in events}) == len(stages)


def test_events_are_what_the_schemas_ask_for(events):
    assert [error for event in events for error in errors_of(event)] == []
    assert {f["_schemaURL"].rpartition("/")[2] for e in events for f in facets_of(e)} >= {
        "DatasetVersionDatasetFacet", "SchemaDatasetFacet", "SourceCodeLocationJobFacet", "JobTypeJobFacet",
        "InbetweenChecksumDatasetFacet", "InbetweenLicenceDatasetFacet", "InbetweenRunFacet",
    }  # fmt: skip


def test_the_schemas_refuse_what_is_wrong(events):
    def broken(change) -> list[str]:
        event = json.loads(json.dumps(events[-1]))
        change(event)
        return errors_of(event)

    assert broken(lambda e: e.pop("job") and e.update(job={"name": "x"}))
    assert broken(lambda e: e.update(eventType="DONE"))
    assert broken(lambda e: e.update(eventTime="yesterday"))
    assert broken(lambda e: e["run"].update(runId="one"))
    assert broken(lambda e: e["outputs"][0]["facets"]["inbetween_checksum"].update(value="none"))
    assert broken(lambda e: e["run"]["facets"]["inbetween_run"].update(host="here"))


@pytest.mark.skipif(not SPEC.is_dir(), reason="the specification's files are not here: OPENLINEAGE_SPEC=FOLDER")
def test_events_hold_against_the_specification_itself(events):
    assert [error for event in events for error in spec_errors(event, SPEC)] == []
    wrong = json.loads(json.dumps(events[-1]))
    wrong["outputs"][0]["facets"]["version"].pop("datasetVersion")
    assert len(spec_errors(wrong, SPEC)) == 1
    assert len(spec_errors(wrong | {"eventType": "DONE"}, SPEC)) == 2


def test_published_schemas_are_sound_and_named_as_the_facets_say():
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["$id"] == f"urn:inbetween:schema:{path.stem}:1-0-0"


def test_an_event_tells_versions_checksums_columns_code_params_and_licences(whole, events):
    (_, end) = of_job(events, "train_renderer@first")
    outputs = {row["name"]: row["facets"] for row in end["outputs"]}
    model = outputs["data/models/renderer/first"]
    md5 = whole.project.ran["train_renderer@first"].outs["data/models/renderer/first"]
    assert model["version"]["datasetVersion"] == md5
    assert (model["inbetween_checksum"]["value"], model["inbetween_checksum"]["kind"]) == (md5[:-4], "folder")
    assert model["datasetType"]["datasetType"] == "MODEL"
    # Of the two videos of its batch, the one that it was trained on.
    videos = [row["name"] for row in model["inbetween_licence"]["sources"] if row["kind"] == "video"]
    assert videos == ["one/a-train"]
    assert model["inbetween_licence"]["verdict"] == "yes, with duties"
    inputs = {row["name"]: row["facets"] for row in end["inputs"]}
    assert set(inputs) == {"data/samples/first", "catalog/one/videos.csv", "data/raw/embedded/no-model"}
    assert [f["name"] for f in inputs["data/samples/first"]["schema"]["fields"]] == ["frame"]
    run = end["run"]["facets"]
    assert run["inbetween_run"]["code"] == {"tasks/train_renderer.py": md5_of(b"# tasks/train_renderer.py\n")}
    assert run["inbetween_run"]["tools"] == {"opencv": "5.0"}
    assert (run["inbetween_run"]["user"], run["inbetween_run"]["event"]) == ("Ada", "ran")
    assert run["executionParameters"]["parameters"] == [
        run["executionParameters"]["parameters"][0] | {"key": "params.yaml:train_renderer.seed", "value": "1"}
    ]
    place = end["job"]["facets"]["sourceCodeLocation"]
    assert (place["type"], place["version"], place["url"]) == (
        "git",
        "0" * 40,
        f"urn:inbetween:git:{'0' * 40}:dvc.yaml",
    )


def test_a_repository_gives_the_code_its_address(lineage):
    event = events_of(lineage, None, "render@plain", repository="https://example.org/p.git")[-1]
    place = event["job"]["facets"]["sourceCodeLocation"]
    assert place["repoUrl"] == "https://example.org/p.git"
    assert place["url"] == f"git+https://example.org/p.git@{'0' * 40}#dvc.yaml"


def test_a_thing_has_the_runs_that_made_it_and_its_sources_alone(lineage):
    jobs = {event["job"]["name"] for event in events_of(lineage, None, "renderer/first")}
    assert jobs == {
        "background@one-4", "download@one", "pose@one", "samples@first", "split@one", "train_renderer@first",
    }  # fmt: skip


def date_last_commit(pipeline: Pipeline, when: str) -> None:
    command = ["git", "commit", "-q", "--amend", "--no-edit", "--date", when]
    subprocess.run(command, cwd=pipeline.project.root, env=os.environ | {"GIT_COMMITTER_DATE": when}, check=True)


def test_restored_runs_reruns_with_the_same_bytes_and_lost_ones(tmp_path):
    pipeline = small_project(tmp_path / "project")
    date_last_commit(pipeline, "2026-01-05T00:00:00Z")
    project = pipeline.project
    first = project.ran["split@one"].deps["tasks/split.py"]
    project.write("tasks/split.py", "# other code, the same clips\n")
    second = md5_of(project.tracked["tasks/split.py"])
    project.revision_number = 9  # its runs are of the 10th of January
    pipeline.run_batch("one")
    last = json.loads(project.record[-1])
    lost = last | {"stage": "split@one", "outs": {"data/one/clips": f"{md5_of(b'lost')}.dir"}}
    restored = {key: value for key, value in last.items() if key not in ("started", "seconds")} | {"event": "restored"}
    restored |= {"finished": "2026-02-01T00:00:00Z", "run": "0c8b1b5e-7d0b-4f43-9f0e-6a1d1c6f2b7a"}
    project.record += [json.dumps(lost), json.dumps(restored), "<<<<<<< ours"]
    project.commit("again")
    made = make_events(ask(pipeline))
    events = [json.loads(line) for line in to_lines(made.events)]
    assert [error for event in events for error in errors_of(event)] == []
    ends = [event for event in of_job(events, "split@one") if event["eventType"] == "COMPLETE"]
    codes = [end["run"]["facets"]["inbetween_run"].get("code", {}).get("tasks/split.py") for end in ends]
    assert codes == [first, second, None]
    assert ends[2]["inputs"] == []
    assert ends[2]["run"]["facets"]["inbetween_run"]["inputsKnown"] is False
    start, end = events[-2:]
    assert start["eventTime"] == end["eventTime"] == "2026-02-01T00:00:00Z"
    facets = end["run"]["facets"]
    assert facets["inbetween_run"]["event"] == "restored"
    assert facets["parent"]["run"]["runId"] == "0c8b1b5e-7d0b-4f43-9f0e-6a1d1c6f2b7a"
    original = [e["run"]["runId"] for e in of_job(events, end["job"]["name"])][-3]
    assert facets["inbetween_run"]["originalRunId"] == original
    assert any("runs (split@one) made what no revision's dvc.lock has" in note for note in made.notes)
    assert any("is no line of the record" in note for note in made.notes)


def documents(lineage, rev: str) -> list[str]:
    return [
        "\n".join(to_lines(make_events(lineage, rev).events)),
        to_text(make_card(lineage, "data/one/clips", rev)[0]),
        to_text(make_bill(lineage, "renderer/first", rev)[0]),
    ]


def test_a_revision_has_the_same_documents_whatever_came_later(tmp_path):
    pipeline = small_project(tmp_path / "project")
    pipeline.project.git("tag", "v1")
    before = documents(ask(pipeline), "v1")
    assert documents(ask(pipeline), "v1") == before
    pipeline.batches["one"]["a9"] = Clip("a9", "a-new", "train")
    pipeline.run_batch("one")
    pipeline.run_renderer("first", "one")
    pipeline.project.commit("more")
    pipeline.run_renderer("first", "one", seed=9)
    pipeline.project.save()  # a work tree that differs
    assert documents(ask(pipeline), "v1") == before
    assert documents(ask(pipeline), "HEAD") != before


def test_stages_that_the_record_lacks_are_told(whole, tmp_path):
    pipeline = small_project(tmp_path / "project")
    pipeline.project.record = [line for line in pipeline.project.record if "render@" not in line]
    pipeline.project.commit("a record that lost lines")
    (note,) = make_events(ask(pipeline), "HEAD").notes
    assert note.startswith("3 stages of dvc.lock (render@moved, render@painted, render@plain) stand in no line")


# Croissant.


def test_a_card_names_files_columns_sources_and_how_it_was_made(lineage, whole):
    card, notes = make_card(lineage, "data/one/clips", "v1")
    assert notes == []
    files = {row["@id"]: row.get("md5") for row in card["distribution"] if row["@type"] == "cr:FileObject"}
    md5 = whole.project.ran["split@one"].outs["data/one/clips"]
    assert files == whole.project.folders[md5]
    assert md5_of(list_bytes(files)) + ".dir" == md5
    assert [field["name"] for field in card["recordSet"][0]["field"]] == ["frame"]
    sources = {row["@id"]: row for row in card["prov:wasDerivedFrom"]}
    assert set(sources) == {"urn:inbetween:video:one/a-train", "urn:inbetween:video:one/a-test"}
    assert sources["urn:inbetween:video:one/a-train"]["url"] == "https://www.youtube.com/watch?v=onea-train"
    assert {row["name"] for row in card["prov:wasGeneratedBy"]} == {"download@one", "split@one"}
    assert card["license"] == ["https://spdx.org/licenses/CC-BY-4.0"]


def clip_table() -> bytes:
    """A table of one frame as stage split writes them, its picture one red and one green pixel."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    picture = Image.new("RGB", (2, 1), "red")
    picture.putpixel((1, 0), (0, 255, 0))
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    image = pa.array(
        [{"bytes": buffer.getvalue(), "path": None}], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )
    rows = {"frame": pa.array([3], pa.int32()), "time": pa.array([0.1]), "image": image}
    facts = {"clip": "a1", "batch": "one", "video": "a-train"}
    out = io.BytesIO()
    pq.write_table(pa.table(rows).replace_schema_metadata({"inbetween": json.dumps(facts)}), out)
    return out.getvalue()


def test_cards_hold_against_mlcroissant_and_read_the_tables(tmp_path):
    mlcroissant = pytest.importorskip("mlcroissant")
    whole = small_project(tmp_path / "project")
    project = whole.project
    clips = {"a1.parquet": project.store(clip_table())}
    project.run("split@one", ["catalog/one/clips.csv", "data/one/videos"], {"data/one/clips": clips})
    project.commit("a clip with a picture")
    project.git("tag", "v1")
    lineage = ask(whole)
    for name in ("data/one/clips", "data/views/walks", "data/models/motion"):
        card, _ = make_card(lineage, name, "v1")
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for row in card["distribution"]:
            if "md5" in row:
                (folder / row["@id"]).write_bytes(whole.project.object_path(row["md5"]).read_bytes())
        (folder / "croissant.json").write_text(to_text(card))
        dataset = mlcroissant.Dataset(folder / "croissant.json")
        assert list(dataset.metadata.ctx.issues.errors) == []
        assert list(dataset.metadata.ctx.issues.warnings) == []
    (picture,) = mlcroissant.Dataset(tmp_path / "data/one/clips/croissant.json").records("rows")
    assert picture["rows/frame"] == 3
    assert picture["rows/image"].getpixel((1, 0)) == (0, 255, 0)
    card = mlcroissant.Dataset(tmp_path / "data/views/walks/croissant.json")
    rows = list(card.records("rows"))
    assert [row["rows/sequence"] for row in rows] == [b"kim_00000", b"kim_00001", b"lee_00000"]


def test_what_is_no_folder_gets_no_card(lineage):
    with pytest.raises(LineageError, match="name one data folder"):
        make_card(lineage, "clip:one/a1")
    with pytest.raises(LineageError, match="the nearest names are"):
        make_card(lineage, "data/one/clipz")


# CycloneDX.


def test_a_bill_names_training_data_code_and_tools_of_a_checkpoint(lineage, whole):
    bill, _ = make_bill(lineage, "renderer/first", "v1")
    model = bill["metadata"]["component"]
    md5 = whole.project.ran["train_renderer@first"].outs["data/models/renderer/first"]
    assert (model["type"], model["version"]) == ("machine-learning-model", md5)
    assert model["hashes"] == [{"alg": "MD5", "content": whole.project.folders[md5]["model.safetensors"]}]
    rows = {row["bom-ref"]: row for row in bill["components"]}
    assert [ref for ref in rows if ref.startswith("video:")] == ["video:one/a-train"]
    video = rows["video:one/a-train"]
    assert video["licenses"] == [{"license": {"id": "CC-BY-4.0"}}]
    assert {"name": "inbetween:clip:a1", "value": "frames 10-19 (train)"} in video["properties"]
    assert "code:tasks/train_renderer.py" in rows
    assert rows["tool:opencv@5.0"]["version"] == "5.0"
    assert (
        bill["metadata"]["timestamp"]
        == json.loads(next(line for line in whole.project.record if "train_renderer@first" in line))["finished"]
    )
    assert {ref["ref"] for ref in model["modelCard"]["modelParameters"]["datasets"]} <= set(rows)


def test_bills_hold_against_the_cyclonedx_schema(lineage):
    validation = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    validator = validation.JsonStrictValidator(SchemaVersion.V1_6)
    for name in ("renderer/first", "data/models/motion"):
        bill, _ = make_bill(lineage, name, "v1")
        assert validator.validate_str(to_text(bill)) is None
        bill["components"][0]["type"] = "video"
        assert validator.validate_str(to_text(bill)) is not None


def test_a_motion_names_each_recording_with_its_hash(lineage, whole):
    bill, _ = make_bill(lineage, "data/models/motion", "v1")
    (row,) = [row for row in bill["components"] if row["bom-ref"].startswith("recordings:")]
    wanted = {r["source_sha256"] for rows in whole.motions["walks"].values() for r in rows}
    assert {p["value"].removeprefix("sha256:") for p in row["properties"]} == wanted


def test_a_data_folder_has_no_bill(lineage):
    with pytest.raises(LineageError, match=r"is no checkpoint: data/one/clips has no provenance\.json"):
        make_bill(lineage, "data/one/clips", "v1")
