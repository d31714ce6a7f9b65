"""What the lineage page holds: nothing but itself, the same bytes each time, folded where there is much."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from flows.lineage import open_lineage
from flows.lineage.page import LIBRARY, PAGE, remove_pages, write_page
from flows.project import ROOT
from tasks.lineage.errors import LineageError
from tasks.lineage.overview import CLIP, Overview, look_over
from tasks.lineage.page import LIBRARY_SHA256, MAX_ALIKE, describe, make_page
from tasks.lineage.thumbnails import Thumbnail, draw_thumbnail, draw_thumbnails
from tasks.tables import CLIP_SCHEMA, encode_png, picture_column, write_table
from tests.lineage_project import Clip, Pipeline, Project, small_project


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Pipeline:
    return small_project(tmp_path_factory.mktemp("page") / "project")


@pytest.fixture(scope="module")
def overview(pipeline) -> Overview:
    return look_over(open_lineage(pipeline.project.root, pipeline.project.root / ".inbetween/lineage.sqlite"))


class Page(HTMLParser):
    """Scripts and addresses of a page, as a browser's parser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.addresses: list[str] = []
        self.policy = ""
        self._is_script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag == "meta" and found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]
        self._is_script = tag == "script"
        if self._is_script:
            self.scripts.append((found, ""))

    def handle_data(self, data):
        if self._is_script:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)

    def handle_endtag(self, tag):
        self._is_script = False


def test_the_page_holds_all_it_needs_and_allows_no_other_script(overview):
    page = Page(make_page(overview, {}, LIBRARY))
    assert set(page.addresses) == {"data:,"}
    assert len(page.scripts) == 3
    for attributes, script in page.scripts[1:]:
        assert attributes == {}
        digest = hashlib.sha256(script.encode()).digest()
        assert f"'sha256-{base64.b64encode(digest).decode()}'" in page.policy
    assert "default-src 'none'" in page.policy
    assert "unsafe-inline" not in page.policy.partition("script-src")[2]
    assert "connect-src" not in page.policy


def test_the_same_record_gives_the_same_bytes(pipeline, overview):
    again = look_over(open_lineage(pipeline.project.root, pipeline.project.root / ".inbetween/lineage.sqlite"))
    assert make_page(again, {}, LIBRARY) == make_page(overview, {}, LIBRARY)


def test_words_of_the_record_are_never_markup(tmp_path):
    pipeline = small_project(tmp_path / "project")
    evil = "</script><script>alert(1)</script><!--&amp;"
    pipeline.licences["a-test"] = evil
    pipeline.run_batch("one")
    pipeline.project.commit("evil")
    root = pipeline.project.root
    text = make_page(look_over(open_lineage(root, root / ".inbetween/lineage.sqlite")), {}, LIBRARY)
    page = Page(text)
    assert len(page.scripts) == 3
    record = json.loads(page.scripts[0][1])
    assert ["Licence", evil] in next(thing for thing in record["things"] if thing["key"] == "video:one/a-test")["facts"]
    assert "<" not in page.scripts[0][1]


def test_a_source_becomes_a_link_only_where_it_is_an_address_of_the_web(tmp_path):
    pipeline = small_project(tmp_path / "project")
    project = pipeline.project
    pipeline.run_batch("one")
    catalogue = project.tracked["catalog/one/videos.csv"].decode()
    project.write("catalog/one/videos.csv", catalogue.replace("youtube:onea-test", "javascript:alert(1)"))
    videos = project.folders[project.md5_at("data/one/videos")]
    project.run("download@one", ["catalog/one/videos.csv"], {"data/one/videos": videos})
    project.commit("a script for a source")
    found = look_over(open_lineage(project.root, project.root / ".inbetween/lineage.sqlite"))
    rows = describe(found, {})["things"]
    things = {row["key"]: {fact[0]: fact[1:] for fact in row.get("facts", [])} for row in rows}
    assert things["video:one/a-test"]["Source"] == ["javascript:alert(1)"]
    assert things["video:one/a-train"]["Source"] == ["https://www.youtube.com/watch?v=onea-train"] * 2


def test_things_stand_to_the_right_of_what_they_were_made_from(overview):
    content = describe(overview, {})
    things = content["things"]
    followed = {(edge.source, edge.reader) for edge in overview.edges if edge.asked is not None}
    assert all(things[source]["column"] < things[reader]["column"] for source, reader in followed)
    assert {content["bands"][thing["band"]] for thing in things} == {"one", "two", "motion", "all together"}
    assert [things[number]["key"] for number in content["open"]] == [
        "download@one", "split@one", "download@two", "split@two",
    ]  # fmt: skip


def test_sets_are_the_things_paths(overview):
    content = describe(overview, {})

    def unpack(number: int) -> set[int]:
        runs = content["sets"][number]
        return {n for first, count in zip(runs[::2], runs[1::2], strict=True) for n in range(first, first + count)}

    for thing, row in zip(overview.things, content["things"], strict=False):
        assert {role: unpack(number) for role, number in row.get("up", [])} == thing.up
        assert (unpack(row["down"]) if "down" in row else set()) == thing.down


def test_many_batches_are_folded_and_stand_closed(tmp_path):
    pipeline = Pipeline(Project(tmp_path / "project"))
    for number in range(MAX_ALIKE + 1):
        batch = f"b{number:02d}"
        pipeline.batches[batch] = {
            f"{batch}_{n}": Clip(f"{batch}_{n}", f"{batch}_v{n}", "train", "kim", 0, 9) for n in range(20)
        }
        pipeline.run_batch(batch)
    pipeline.project.commit("many")
    root = pipeline.project.root
    content = describe(look_over(open_lineage(root, root / ".inbetween/lineage.sqlite")), {})
    folds = {thing["label"]: thing for thing in content["things"] if thing.get("fold")}
    assert folds.keys() == {"180 videos", "180 clips", "9 poses", "9 backgrounds"}
    assert {fold["sub"] for fold in folds.values()} == {"of 9 batches"}
    assert content["bands"] == ["pictures, 9 batches"]
    assert content["open"] == []
    tops = [thing for thing in content["things"] if "parent" not in thing]
    assert all(thing.get("fold") or content["kinds"][thing["kind"]] == "raw data" for thing in tops)


def test_another_library_than_the_one_on_record_is_refused(overview, tmp_path):
    assert hashlib.sha256(LIBRARY.read_bytes()).hexdigest() == LIBRARY_SHA256
    third_party = (ROOT / "THIRD_PARTY.md").read_text()
    version = re.search(r"cytoscape\.js ([\d.]+)", third_party)
    assert version
    assert version[1] in LIBRARY.read_text()
    assert LIBRARY_SHA256 in third_party
    assert "Cytoscape Consortium" in (LIBRARY.parent / "LICENSE").read_text()
    other = tmp_path / "cytoscape.min.js"
    other.write_bytes(LIBRARY.read_bytes() + b"\n")
    with pytest.raises(LineageError, match=r"cytoscape\.min\.js: is not the file on record in THIRD_PARTY\.md"):
        make_page(overview, {}, other)


def clip_file(path, frames: int = 4, size: int = 400):
    rng = np.random.default_rng(1)
    pictures = [encode_png(rng.integers(0, 255, (size, size // 2, 3), dtype=np.uint8)) for _ in range(frames)]
    names = [f"{n}.png" for n in range(frames)]
    rows = [pa.array(range(frames), pa.int32()), pa.array(np.arange(frames) / 30), picture_column(pictures, names)]
    write_table("clip", path, [pa.table(rows, schema=CLIP_SCHEMA)], {"clip": path.stem})
    return path


def test_pictures_keep_their_shape_and_their_share_of_the_bytes(tmp_path):
    import cv2

    file = clip_file(tmp_path / "a.parquet")
    large = draw_thumbnail(file, 10_000)
    assert large
    image = cv2.imdecode(np.frombuffer(large.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (large.height, large.width, 3) == (112, 56, 3)
    small = draw_thumbnail(file, 1_500)
    assert small
    assert len(small.jpeg) <= 1_500
    assert small.height < 112
    tables = dict.fromkeys(range(20), file)
    drawn = draw_thumbnails(tables, 30_000, 2)
    assert len(drawn) == 20
    assert sum(len(picture.jpeg) for picture in drawn.values()) <= 30_000
    assert draw_thumbnails(tables, 2_000, 2) == {}  # too little for any


def test_a_clip_without_a_picture_to_be_read_has_none(tmp_path):
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 no table")
    assert draw_thumbnail(broken, 10_000) is None
    assert draw_thumbnail(tmp_path / "missing.parquet", 10_000) is None
    assert draw_thumbnail(clip_file(tmp_path / "none.parquet", frames=0), 10_000) is None


def test_pages_are_written_whole_and_a_withdrawal_removes_them(pipeline, tmp_path, overview):
    root = pipeline.project.root
    index = root / ".inbetween/lineage.sqlite"
    write_page(root / PAGE, lineage=open_lineage(root, index))
    number = next(n for n, thing in enumerate(overview.things) if thing.kind == CLIP)
    shown = make_page(overview, {number: Thumbnail(b"jpeg", 10, 20)}, LIBRARY)
    assert '"size":[10,20]' in shown
    other = tmp_path / "of-mine.html"
    other.write_text("<p>not a page of ours</p>")
    elsewhere = tmp_path / "sub/page.html"
    elsewhere.parent.mkdir()
    elsewhere.write_text(shown)
    (root / ".inbetween/pages.txt").write_text(f"{other}\n{elsewhere}\n{tmp_path / 'gone.html'}\n")
    assert remove_pages(root) == [str(elsewhere), str(root / PAGE)]
    assert other.is_file()
    assert remove_pages(root) == []


def test_a_place_that_cannot_be_written_is_one_line(pipeline, tmp_path):
    root = pipeline.project.root
    (tmp_path / "file").write_text("")
    with pytest.raises(LineageError, match=r"page\.html: cannot be written .*; name another place"):
        write_page(tmp_path / "file/page.html", lineage=open_lineage(root, root / ".inbetween/lineage.sqlite"))
