"""The lineage page in a real browser: opened from disk, searched, filtered, clicked, used by keyboard, printed."""

import re

import cv2
import numpy as np
import pyarrow as pa
import pytest
from playwright.sync_api import expect

from flows.lineage import open_lineage
from flows.lineage.page import write_page
from tasks.tables import CLIP_SCHEMA, encode_png, picture_column, write_table
from tests.lineage_project import small_project

pytestmark = pytest.mark.timeout(300)  # for a busy machine

TITLE = "</script><img src=x onerror=\"document.title='broken in'\"> & 'so on'"


def clip_table(path, facts) -> bytes:
    image = np.full((48, 32, 3), (40, 120, 200), np.uint8)
    cv2.circle(image, (16, 20), 8, (255, 255, 255), -1)
    picture = picture_column([encode_png(image)], ["0.png"])
    rows = pa.table([pa.array([0], pa.int32()), pa.array([0.0]), picture], schema=CLIP_SCHEMA)
    write_table("clip", path, [rows], facts)
    return path.read_bytes()


@pytest.fixture(scope="module")
def page_url(tmp_path_factory):
    root = tmp_path_factory.mktemp("lineage") / "project"
    pipeline = small_project(root)
    project = pipeline.project
    # Clip a3 with a picture; a title that would break out of a page that pastes it; a video that was withdrawn.
    clip = pipeline.batches["one"]["a3"]
    facts = {"clip": "a3", **pipeline._facts("one", clip)}
    pipeline._tables[f"clip {clip} {pipeline._facts('one', clip)}"] = project.store(
        clip_table(root / "a3.parquet", facts)
    )
    store = project.store
    project.store = lambda data: store(data.replace(b"Title of a-test", TITLE.replace('"', '\\"').encode()))
    pipeline.licences["b-train"] = "CC-BY-NC-4.0"
    for batch in ("one", "two"):
        pipeline.run_batch(batch)
    pipeline.run_renderer("first", "one")
    pipeline.run_renderer("second", "two")
    pipeline.run_render("plain", "one")
    pipeline.run_render("painted", "two", renderer="first")
    pipeline.run_render("moved", "one", motion="data/models/motion")
    pipeline.run_report()
    pipeline.declare()
    project.commit("a picture, a title")
    project.save()
    marks = (
        "video,source,licence,sha256,withdrawn,reason\nb-train,youtube:b,CC-BY-NC-4.0,,2026-02-03,asked <b>for</b>\n"
    )
    (root / "catalog/two/withdrawn.csv").write_text(marks)
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("crf: 16", "crf: 18"))
    out = root / "page.html"
    write_page(out, lineage=open_lineage(root, root / ".inbetween/lineage.sqlite"))
    return out.as_uri()


@pytest.fixture
def page(browser, page_url):
    """The page, ready; at the end nothing has been complained of and nothing fetched but itself."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(30_000)
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_url)
    page.wait_for_selector("html[data-ready]")
    yield page
    title = page.title()
    page.close()
    assert complaints == []
    assert title == "Render in-between: lineage"
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [page_url]


def settle(page) -> None:
    """The page answers in the next frame."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def rows(page) -> list[str]:
    settle(page)
    return page.locator("#rows tr[data-i] b").all_inner_texts()


def find(page, key: str) -> int:
    return page.evaluate("(key) => lineagePage.find(key)", key)


def drawn(page) -> set[str]:
    return set(page.evaluate("lineagePage.drawn().map((i) => lineagePage.things[i].key)"))


def classes(page, key: str) -> list[str]:
    return page.evaluate("(key) => lineagePage.classes(lineagePage.find(key))", key)


def click(page, key: str) -> None:
    at = page.evaluate("(key) => lineagePage.placeOf(lineagePage.find(key))", key)
    page.mouse.click(at["x"], at["y"])


def chosen(page) -> str:
    return page.evaluate("lineagePage.state.selected < 0 ? '' : lineagePage.things[lineagePage.state.selected].key")


def test_a_click_shows_the_whole_path_and_escape_ends_it(page):
    everything = drawn(page)
    assert {"clip:one/a3", "render@moved", "train_motion", "report"} <= everything
    click(page, "clip:one/a3")
    assert chosen(page) == "clip:one/a3"
    assert {"video:one/a-test", "pose@one", "render@plain", "render@moved", "evaluate@plain", "report"} <= drawn(page)
    assert not {"clip:one/a1", "train_motion", "train_renderer@first", "pose@two"} & drawn(page)
    card = page.locator("#card")
    expect(card).to_contain_text("30-39")
    expect(card.locator("img")).to_have_js_property("complete", True)
    assert card.locator("img").evaluate("(img) => img.naturalWidth / img.naturalHeight") == pytest.approx(32 / 48, 0.05)
    expect(page.locator("#rows tr.title").nth(1)).to_contain_text("Made from (2)")
    assert page.url.endswith("#clip%3Aone%2Fa3")
    click(page, "render@moved")
    expect(page.locator("#rows")).to_contain_text("Made from, through motion")
    assert {"subject:walks/set/kim", "train_motion", "joints@walks", "clip:one/a3"} <= drawn(page)
    assert not {"joints@jumps", "render@plain"} & drawn(page)
    page.keyboard.press("Escape")
    assert chosen(page) == ""
    assert drawn(page) == everything


def test_what_is_not_on_the_path_stays_dim_where_everything_is_shown(page):
    click(page, "clip:one/a3")
    page.get_by_role("button", name="Path alone").click()
    assert "dim" not in classes(page, "render@plain")
    assert "dim" in classes(page, "render@painted")
    assert "chosen" in classes(page, "clip:one/a3")


def test_search_finds_by_name_title_licence_and_hash(page):
    search = page.get_by_label("Search")
    search.fill("a3")
    settle(page)
    expect(page.locator("#status")).to_have_text(re.compile(r"1 of \d\d things"))
    assert rows(page) == ["a3"]
    assert "dim" in classes(page, "render@plain")
    assert "dim" not in classes(page, "clip:one/a3")
    search.fill("onerror")
    assert rows(page) == ["a-test"]
    search.fill("clip two train")
    assert rows(page) == ["b1", "b2"]
    md5 = page.evaluate("lineagePage.things[lineagePage.find('render@plain')].outs[0][1]")
    search.fill(md5)
    assert rows(page) == ["plain"]
    search.fill("there is no such thing")
    expect(page.get_by_text("Nothing has these words")).to_be_visible()
    page.keyboard.press("Escape")
    expect(search).to_have_value("")
    assert len(rows(page)) > 30


def test_what_comes_from_catalogues_is_text(page):
    page.get_by_label("Search").fill("a-test")
    settle(page)
    page.locator("#rows tr[data-i]", has_text="video").first.click()
    expect(page.locator("#card")).to_contain_text(TITLE)
    expect(page.locator("#card a")).to_have_attribute("href", "https://www.youtube.com/watch?v=onea-test")
    assert page.locator("#card img[src=x]").count() == 0


def test_filters_by_kind_and_mark(page):
    page.locator("#kinds button", has_text="checkpoint").click()
    assert sorted(rows(page)) == ["motion", "renderer/first", "renderer/second"]
    page.locator("#marks button", has_text="non-commercial").click()
    assert rows(page) == ["renderer/second"]
    page.locator("#kinds button", has_text="checkpoint").click()
    found = rows(page)
    assert {"b-train", "b1", "b2", "two clips", "renderer/second"} <= set(found)
    assert not {"renderer/first", "a3", "one clips"} & set(found)
    assert "dim" in classes(page, "train_renderer@first")
    assert "dim" not in classes(page, "train_renderer@second")


def test_marks_are_told_by_words_and_shape_beside_colour(page):
    page.locator("#marks button", has_text="stale").click()
    assert {"plain", "painted", "moved"} <= set(rows(page))
    page.get_by_label("Search").fill("plain render")
    settle(page)
    expect(page.locator("#rows .pill.m1").first).to_have_text("stale")
    assert page.locator("#rows .pill.m1").first.evaluate("(e) => getComputedStyle(e).borderStyle") == "dashed"
    assert "mark-stale" in classes(page, "render@plain")
    page.locator("#rows tr[data-i]").first.click()
    expect(page.locator("#card")).to_contain_text("params.yaml render.crf: 16 -> 18")
    page.keyboard.press("Escape")
    page.locator("#marks button", has_text="stale").click()
    page.locator("#marks button", has_text="withdrawn").click()
    assert {"b-train", "b1", "b2", "renderer/second"} <= set(rows(page))
    assert "mark-withdrawn" in classes(page, "video:two/b-train")
    page.locator("#rows tr[data-i]", has_text="b-train").first.click()
    expect(page.locator("#card")).to_contain_text("2026-02-03: asked <b>for</b>")


def test_the_table_works_by_keyboard(page):
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("batch-that-is-not")
    page.keyboard.press("Escape")
    page.keyboard.type("render")
    settle(page)
    page.keyboard.press("ArrowDown")
    first = page.evaluate("document.activeElement.dataset.i")
    page.keyboard.press("ArrowDown")
    second = page.evaluate("document.activeElement.dataset.i")
    assert first != second
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("String(lineagePage.state.selected)") == second
    assert page.evaluate("document.activeElement.dataset.i") == second  # where it stands in the path
    expect(page.locator("#live")).to_contain_text("made from it")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.evaluate("String(lineagePage.state.selected)") not in ("", second)
    page.keyboard.press("Escape")
    assert chosen(page) == ""


def test_the_picture_works_by_keyboard(page):
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "graph":
            break
    expect(page.locator("#graph")).to_be_focused()
    expect(page.locator("#live")).not_to_have_text("")
    before = page.evaluate("lineagePage.state.cursor")
    columns = [page.evaluate("lineagePage.things[lineagePage.state.cursor].column")]
    for _ in range(4):
        page.keyboard.press("ArrowRight")
        columns.append(page.evaluate("lineagePage.things[lineagePage.state.cursor].column"))
    assert columns == sorted(columns)
    assert columns[-1] > columns[0]
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("lineagePage.things[lineagePage.state.cursor].column") < columns[-1]
    assert page.evaluate("lineagePage.state.cursor") != before
    page.keyboard.press("Enter")
    assert chosen(page) != ""
    zoom = page.evaluate("lineagePage.zoom()")
    page.keyboard.press("+")
    assert page.evaluate("lineagePage.zoom()") > zoom
    page.keyboard.press("Escape")
    assert chosen(page) == ""
    expect(page.locator("#graph")).to_be_focused()


def test_a_folder_opens_and_closes(page):
    assert "subject:walks/set/kim" not in drawn(page)
    click(page, "recordings:walks")
    page.keyboard.press("Escape")
    page.locator("#graph").focus()
    number = find(page, "recordings:walks")
    page.evaluate("(i) => { lineagePage.state.cursor = i; }", number)
    page.keyboard.press(" ")
    assert {"subject:walks/set/kim", "subject:walks/set/lee"} <= drawn(page)
    page.keyboard.press(" ")
    assert "subject:walks/set/kim" not in drawn(page)


def test_all_folders_open_and_close_at_once_in_a_path_too(page):
    button = page.get_by_role("button", name="Open or close all")
    button.click()
    assert {"subject:walks/set/kim", "subject:jumps/set/mo", "clip:two/b1"} <= drawn(page)
    button.click()
    assert not {"subject:walks/set/kim", "clip:two/b1"} & drawn(page)
    click(page, "render@moved")
    assert {"subject:walks/set/kim", "clip:one/a3"} <= drawn(page)
    button.click()
    assert not {"subject:walks/set/kim", "clip:one/a3"} & drawn(page)
    button.click()
    assert {"subject:walks/set/kim", "clip:one/a3"} <= drawn(page)
    assert "subject:jumps/set/mo" not in drawn(page)


def test_an_address_with_a_thing_opens_its_path(browser, page_url):
    page = browser.new_page()
    page.goto(f"{page_url}#data/models/motion")
    page.wait_for_selector("html[data-ready]")
    assert chosen(page) == "train_motion"
    page.close()


def test_print_has_the_picture_the_path_and_what_is_left_open(page, tmp_path):
    click(page, "render@moved")
    page.emulate_media(color_scheme="dark")
    page.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)  # as a person who prints: beforeprint is sent
    page.emulate_media(media="print")
    expect(page.locator("#print")).to_be_visible()
    assert page.locator("#print").evaluate("(img) => img.naturalWidth") > 1000
    expect(page.locator("#canvas")).to_be_hidden()
    expect(page.get_by_label("Search")).to_be_hidden()
    expect(page.locator("#card")).to_be_visible()
    expect(page.locator(".print-only")).to_contain_text("the work tree differs from HEAD")
    red = page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert red == 255


def test_nothing_is_wider_than_the_screen(page):
    for width in (390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        # The page lays itself out anew when it is told of the size, which may be a moment later.
        page.wait_for_function(
            "width => innerWidth === width && document.documentElement.scrollWidth <= width", arg=width
        )
