"""`inbetween catalog check`, and what `catalog add` refuses; catalog add on real footage is in tests/real."""

import re
import shutil
from pathlib import Path

import pytest

from flows import catalog, catalog_add
from flows.project import ROOT
from tasks.catalog import read_catalog
from tasks.errors import CatalogError, InbetweenError


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """The project's catalogue and params in a folder of their own."""
    shutil.copytree(ROOT / "catalog", tmp_path / "catalog")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for module in (catalog, catalog_add):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(catalog_add, "STATE", tmp_path / ".inbetween")
    return tmp_path


def test_check_says_sizes_leaks_and_clips_that_are_the_same(root, capsys):
    catalog.check_batches(["humanslomo"])
    leak = "106 of 353 in-between test frames and 266 of 381 test keys are also training frames (key step 2)"
    assert [line.removeprefix("catalog/humanslomo: ") for line in capsys.readouterr().err.splitlines()] == [
        "10 videos, 80 train clips of 4492 frames, 28 test clips of 734 frames",
        "clips 08_Kungfu_421 and 08_Kungfu_426 hold the same frames",
        f"leak: {leak}",
        "28 test clips share frames with training clips; a renderer of split: clean is trained without them",
    ]


def test_check_says_what_hangs_on_a_video_that_is_not_there(root, capsys):
    row = '{"video": "kick_back", "source": "", "licence": "", "status": "skipped", "reason": "gone: HTTP Error 404"}'
    (root / "data/sample/videos").mkdir(parents=True)
    (root / "data/sample/videos/manifest.json").write_text(f"[{row}]")
    catalog.check_batches(["sample"])
    assert capsys.readouterr().err.splitlines()[-1] == (
        "catalog/sample: video kick_back: gone: HTTP Error 404; on it hang 1 train clip (100.0% of the split's frames)"
    )


def test_check_says_that_two_videos_are_one_file(root, capsys):
    (root / "catalog/two").mkdir()
    one = f"file:v.mp4,CC0,{'a' * 64}"
    (root / "catalog/two/videos.csv").write_text(
        f"video,source,licence,sha256\nv,{one}\nw,{one.replace('v.mp4', 'w.mp4')}\nx,file:x.mp4,CC0,\n"
    )
    (root / "catalog/two/clips.csv").write_text(
        "clip,video,split,first,last,width,height\na,v,train,0,9,64,64\nb,w,test,0,9,64,64\n"
    )
    catalog.check_batches(["two"])
    assert "catalog/two: videos v and w are the same file; leaks between them are not seen: keep one" in (
        capsys.readouterr().err.splitlines()
    )


def test_check_names_file_and_row_of_every_fault(root, capsys):
    folder = root / "catalog/bad"
    folder.mkdir()
    (folder / "videos.csv").write_text(
        "video,source,licence\nv,file:v.mp4,CC0\n../up,file:v.mp4,CC0\nw,ftp://x,CC0\nx,file:x.mp4,\n"
    )
    (folder / "clips.csv").write_text(
        "clip,video,split,first,last,width,height\n"
        "a,v,train,0,9,64,64\n/etc/b,v,train,0,9,64,64\nc,w,train,0,9,64,64\nd,gone,train,0,9,64,64\ne,v,train,9,0,64\n"
    )
    with pytest.raises(CatalogError, match="6 faults in bad; mend the rows named above"):
        catalog.check_batches(["bad"])
    assert [
        re.match(r"catalog/bad/(\w+\.csv row \d+)", fault)[1] for fault in capsys.readouterr().err.splitlines()
    ] == [
        "videos.csv row 3",
        "videos.csv row 4",
        "videos.csv row 5",
        "clips.csv row 6",
        "clips.csv row 3",
        "clips.csv row 5",
    ]


def test_check_and_add_refuse_a_withdrawn_video(root, capsys):
    source = read_catalog(root, "sample").videos["kick_back"].source
    (root / "catalog/old").mkdir()
    (root / "catalog/old/withdrawn.csv").write_text(
        f"video,source,licence,sha256,withdrawn,reason\ngone,{source},CC0,,2026-11-26,asked for\n"
    )
    with pytest.raises(CatalogError, match="1 fault in sample"):
        catalog.check_batches(["sample"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"catalog/sample/videos.csv: kick_back: its source {source} was withdrawn on 2026-11-26 as old/"
    )
    with pytest.raises(CatalogError, match=r"was withdrawn on 2026-11-26 as old/gone \(asked for\)"):
        catalog_add.add_batch("new", [source], root, "", force=False)
    assert not (root / "catalog/new").exists()


def test_a_batch_that_is_none_is_named(root):
    with pytest.raises(CatalogError, match=r"catalog/../sample: there is no such batch; there are humanslomo, "):
        catalog.check_batches(["../sample"])


@pytest.mark.parametrize(
    ("batch", "words", "message"),
    [
        ("../up", ["film.mp4"], r"batch '../up': a batch's name is letters"),
        ("new", ["none.mp4"], r"none.mp4: there is no such file or folder"),
        ("new", ["catalog"], r"is a folder of pictures, which states no rate; give it with --fps"),
        ("new", ["params.yaml", "./params.yaml"], r"stands twice"),
        ("new", ["params.yaml"], r"params.yaml: not a video|no video stream|params.yaml"),
        ("new", ["params.yaml", "catalog/sample/clips.csv"], r"batch new: no clip to propose in 2 videos"),
        ("new", ["none.txt"], r"none.txt: cannot be read as a list of sources"),
        ("new", ["empty.txt"], r"empty.txt: names no source; write an address or a path a line"),
        ("sample", ["params.yaml"], r"catalog/sample/videos.csv: is there already and stays as it is"),
        ("sample", [], r"catalog/sample/clips.csv: is there already and stays as it is"),
        ("gone", [], r"catalog/gone/videos.csv: there is no such file"),
    ],
)
def test_mistakes_of_add_are_one_line_and_write_nothing(root, batch, words, message):
    (root / "empty.txt").write_text("# nothing yet\n")
    before = sorted(path.relative_to(root) for path in (root / "catalog").rglob("*"))
    with pytest.raises(InbetweenError, match=message) as caught:
        catalog_add.add_batch(batch, words, root, "", force=False)
    assert "\n" not in str(caught.value)
    assert sorted(path.relative_to(root) for path in (root / "catalog").rglob("*")) == before
