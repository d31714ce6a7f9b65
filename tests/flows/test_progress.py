"""Plain lines of progress, as a log has them; no terminal is here."""

from flows import progress
from flows.progress import Progress


def test_the_time_left_is_told_once_it_is_more_than_the_start_and_leaves_out_what_was_done_before(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with Progress("render: frames", 1000, "frames") as bar:
        bar.skip(800)
        for at_s, done in ((10.0, 1), (12.0, 1), (15.0, 4), (20.0, 14)):
            clock[0] = at_s
            bar.advance(done)
    assert capsys.readouterr().err.splitlines() == [
        "render: frames: 801 of 1000 frames, ETA unknown",
        "render: frames: 806 of 1000 frames, ETA 8 min 05 s",
        "render: frames: 820 of 1000 frames, ETA 3 min 00 s",
    ]
