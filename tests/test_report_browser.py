"""The report in a real browser: opened from disk, used with the mouse and the keyboard."""

import statistics

import pytest
from playwright.sync_api import expect

from tasks.report import write_report
from tasks.video import ffmpeg_path
from tests.tasks.motion_report_samples import write_motion
from tests.tasks.report_samples import FPS, NUM_FRAMES, TRUTH_SHARES, make_entry, write_truth

# For a busy machine.
pytestmark = pytest.mark.timeout(600)

FRAME_S = 1 / FPS
# The first clip's shown players; only clips on the screen are loaded and play.
VISIBLE_VIDEOS = """() => [...document.querySelectorAll("#sample-jump video")]
  .filter((video) => video.offsetParent !== null)
  .map((video) => ({time: video.currentTime, paused: video.paused, ready: video.readyState, width: video.videoWidth,
                    seeking: video.seeking, source: video.dataset.src}))"""


@pytest.fixture(scope="module")
def page_url(tmp_path_factory):
    data, report = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("report")
    for clip in ("jump", "kick"):
        write_truth(data, clip)
    entries = [make_entry(data, step, method, ("jump", "kick")) for step in (4, 8) for method in TRUTH_SHARES]
    write_report(
        report,
        entries,
        motion=write_motion(data / "motion"),
        skipped={"walk": "its video is private"},
        commands=["inbetween repro"],
        media_height=480,
        sample_frames=2,
        worst_frames=2,
        ffmpeg=ffmpeg_path("pinned"),
        workers=2,
    )
    return (report / "index.html").as_uri()


@pytest.fixture
def page(browser, page_url):
    """The page, loaded; at the end nothing has been complained of and nothing fetched but from disk."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(30_000)
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"{request.url}: {request.failure}"))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_url)
    wait_until_ready(page)
    yield page
    page.close()
    # A video that is sent elsewhere while it loads drops its request; that is no fault.
    assert [text for text in complaints if "ERR_ABORTED" not in text] == []
    assert {url.split(":")[0] for url in requests} <= {"file", "data"}


def wait_until_ready(page):
    page.wait_for_function(f"({VISIBLE_VIDEOS})().every((v) => v.ready >= 2 && !v.seeking)")


def visible(page):
    return page.evaluate(VISIBLE_VIDEOS)


def shown_frame(page):
    return int(page.locator("#scrub").input_value())


def expect_frame(page, frame):
    """Every player that is shown stands within the frame."""
    expect(page.locator("#scrub")).to_have_value(str(frame))
    page.wait_for_function(
        f"({VISIBLE_VIDEOS})().every((v) => v.paused && !v.seeking && Math.floor(v.time * {FPS}) === {frame})"
    )


def test_players_show_real_pictures(page):
    videos = visible(page)
    assert len(videos) == 2 + len(TRUTH_SHARES)
    assert {video["width"] for video in videos} == {64}
    shown = [caption.split()[0] for caption in page.locator(".players:visible figcaption").all_inner_texts()[:5]]
    assert shown == ["input", "blend", "flow", "warp", "truth"]


def test_players_play_in_step(page):
    page.get_by_label("Speed").select_option("0.25")
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function(f"({VISIBLE_VIDEOS})().every((v) => !v.paused)")
    page.wait_for_timeout(1500)  # what a late start cost has been caught up by then
    spreads, times = [], []
    for _ in range(20):
        now = [video["time"] for video in visible(page)]
        spreads.append(max(now) - min(now))
        times.append(now[0])
        page.wait_for_timeout(50)
    assert statistics.median(spreads) < FRAME_S
    assert len(set(times)) > 5  # they did play
    page.get_by_role("button", name="Stop").click()
    wait_until_ready(page)
    expect_frame(page, shown_frame(page))


def test_a_clip_further_down_joins_when_it_is_scrolled_to(page):
    page.locator("#scrub").fill("13")
    assert page.locator("#sample-kick video[src]").count() == 0
    page.locator("#sample-kick").scroll_into_view_if_needed()
    other = VISIBLE_VIDEOS.replace("sample-jump", "sample-kick")
    page.wait_for_function(f"({other})().every((v) => v.ready >= 2 && Math.floor(v.time * {FPS}) === 13)")


def test_it_starts_again_after_the_end(page):
    page.get_by_label("Speed").select_option("1")
    page.keyboard.press("End")
    expect_frame(page, NUM_FRAMES - 1)
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function(f"Number(document.querySelector('#scrub').value) < {NUM_FRAMES // 2}")
    page.wait_for_function(f"({VISIBLE_VIDEOS})().every((v) => !v.paused && v.time < {0.9 * NUM_FRAMES / FPS})")


def test_keyboard_steps_frames_and_plays(page):
    page.locator("h1").click()
    page.keyboard.press("Home")
    expect_frame(page, 0)
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect_frame(page, 3)
    expect(page.locator("#readout")).to_have_text(f"3 / {NUM_FRAMES - 1} 3 of 7 between keys")
    page.keyboard.press("ArrowLeft")
    expect_frame(page, 2)
    page.keyboard.press("End")
    expect_frame(page, NUM_FRAMES - 1)
    expect(page.locator("#readout")).to_contain_text("key frame")
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()


def test_scrubbing_moves_all_players(page):
    page.locator("#scrub").fill("11")
    expect_frame(page, 11)
    # Left at zero and right at the last frame of the plot; its own padding apart.
    plot = page.locator(".plot.wide:visible").first
    box = plot.bounding_box()
    left, right = (float(plot.get_attribute(f"data-{side}")) for side in ("left", "right"))
    share = left + (right - left) * 18 / (NUM_FRAMES - 1)
    plot.click(position={"x": box["width"] * share, "y": box["height"] / 2})
    expect_frame(page, 18)


def test_key_step_buttons_change_players_tables_and_plots(page):
    assert all(video["source"].endswith(("-8.mp4", "24.mp4")) for video in visible(page))
    button = page.get_by_role("button", name="every 4th")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="every 8th")).to_have_attribute("aria-pressed", "false")
    wait_until_ready(page)
    assert all(video["source"].endswith(("-4.mp4", "24.mp4")) for video in visible(page))
    expect(page.locator(".plot.wide:visible")).to_have_count(2)
    expect_frame(page, shown_frame(page))


def test_method_buttons_hide_a_method_everywhere_but_in_tables(page):
    button = page.get_by_role("button", name="flow", exact=True)
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    assert not any("flow" in video["source"] for video in visible(page))
    expect(page.locator("svg [data-series=flow]:visible")).to_have_count(0)
    expect(page.locator(".pictures [data-series=flow]:visible")).to_have_count(0)
    assert page.locator("table:visible th", has_text="flow").count() > 0
    button.click()
    wait_until_ready(page)
    assert any("flow" in video["source"] for video in visible(page))
    expect_frame(page, shown_frame(page))


def test_an_error_map_leads_to_its_frame(page):
    link = page.get_by_role("button", name="show in the players").first
    frame = int(link.get_attribute("data-go"))
    page.keyboard.press("Home")
    expect_frame(page, 0)
    link.click()
    expect_frame(page, frame)


def test_all_pictures_are_there(page):
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    assert page.evaluate("[...document.images].filter((image) => image.naturalWidth === 0).length") == 0
    assert page.locator("img").count() > 0


def test_what_is_missing_is_on_the_page(page):
    expect(page.get_by_text("Clip walk was skipped: its video is private.")).to_be_visible()


def test_motion_animation_plays_by_its_own_controls_and_the_table_opens(page):
    video = page.locator("#motion video")
    video.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#motion video').readyState >= 1")
    assert video.evaluate("(v) => [v.videoWidth, v.loop, v.controls, v.paused]") == [64, True, True, True]
    video.evaluate("(v) => v.play()")
    page.wait_for_function("document.querySelector('#motion video').currentTime > 0.05")
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()  # the others stand still
    jerk = page.locator("#motion table", has_text="Jerk")
    expect(jerk).to_be_hidden()
    page.locator("#motion summary").press(" ")
    expect(jerk).to_be_visible()
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_screen(page, width):
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_mode_is_dark_and_print_has_every_key_step(page):
    page.emulate_media(color_scheme="dark")
    red = page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert red < 40
    page.emulate_media(media="print", color_scheme="light")
    expect(page.locator(".transport")).to_be_hidden()
    expect(page.locator(".plot.wide:visible")).to_have_count(4)
