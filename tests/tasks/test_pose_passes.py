"""One person through a clip that is longer than a chunk: whoever a chunk alone would follow."""

import numpy as np
import pyarrow as pa
import pytest

from models.skeleton import MIRRORED, Joint
from tasks.items import ItemStore, do_group, item_key
from tasks.pose import MediapipeSettings
from tasks.pose_passes import PosePlan, estimate_group, plan_again, plan_pass, read_joints, write_poses
from tasks.tables import CLIP_SCHEMA, Table, encode_png, picture_column, write_table
from tests.tasks.openpose_samples import write

RED, BLUE = (40, 40, 200), (200, 40, 40)
NUM_FRAMES, CHUNK_FRAMES = 80, 16
FIGURE = {  # BODY_25, in torsos; arms and legs apart
    0: (0, -0.4), 1: (0, 0), 8: (0, 1),
    2: (-0.3, 0), 3: (-0.6, 0.3), 4: (-0.8, 0.6), 5: (0.3, 0), 6: (0.6, 0.3), 7: (0.8, 0.6),
    9: (-0.2, 1), 10: (-0.35, 1.8), 11: (-0.45, 2.6), 12: (0.2, 1), 13: (0.35, 1.8), 14: (0.45, 2.6),
    19: (0.5, 2.7), 22: (-0.5, 2.7),
}  # fmt: skip
LEFT, RIGHT = [5, 6, 7, 12, 13, 14, 19], [2, 3, 4, 9, 10, 11, 22]


def person(frame, x, torso_px=60.0, is_swapped=False):
    """Somebody who sways by half a pixel a frame."""
    body = np.zeros((25, 3))
    for point, (dx, dy) in FIGURE.items():
        body[point] = (x + torso_px * dx + 0.5 * frame, 50 + torso_px * dy, 0.9)
    if is_swapped:
        body[LEFT + RIGHT] = body[RIGHT + LEFT]
    return body


class Scene:
    """A clip of people in shirts of one colour, its OpenPose files, and the passes over it."""

    def __init__(self, folder, people):
        """people: frame -> [(body, colour)]."""
        self.folder, self.json = folder, folder / "json"
        self.json.mkdir(parents=True)
        pictures = []
        for frame in range(NUM_FRAMES):
            image = np.full((260, 400, 3), 128, np.uint8)
            for body, colour in people(frame):
                (left, top), (right, bottom) = body[[2, 5, 9, 12], :2].min(axis=0), body[[2, 5, 9, 12], :2].max(axis=0)
                image[int(top) - 9 : int(bottom) + 9, int(left) - 9 : int(right) + 9] = colour
            pictures.append(encode_png(image))
            write(self.json, frame, [{"pose_keypoints_2d": body.ravel().tolist()} for body, _ in people(frame)])
        frames = pa.array(range(NUM_FRAMES), pa.int32())
        images = picture_column(pictures, map(str, range(NUM_FRAMES)))
        rows = pa.Table.from_arrays([frames, frames.cast(pa.float64()), images], schema=CLIP_SCHEMA)
        write_table("clip", folder / "clip.parquet", [rows], {"clip": "clip"})
        self.store = ItemStore(folder / "items")

    def estimate(self, chunk_frames, order=1):
        """The chunks of the pass over all frames as first done, and as they are in the end."""
        table = Table("clip", self.folder / "clip.parquet")
        first = plan_pass(table, "truth", range(NUM_FRAMES), self.json, item_key, chunk_frames)
        self.do(first[::order])
        final = plan_again(first, self.store)
        self.do([item for item, before in zip(final, first, strict=True) if item is not before])
        return first, final

    def do(self, items):
        for item in items:
            work = lambda items: estimate_group(items, self.folder, MediapipeSettings(1, 1, 1))  # noqa: E731
            do_group(work, [item], self.store)

    def joints(self, chunks):
        found = read_joints(chunks, self.store)
        assert list(found) == list(range(NUM_FRAMES))
        return np.stack(list(found.values()))


def number_done_again(first, final):
    return [n for n, (before, item) in enumerate(zip(first, final, strict=True)) if item is not before]


def test_somebody_else_alone_in_a_whole_chunk_is_not_the_clips_person(tmp_path):
    """Red is there, then blue alone in nearly the same place, then red again; chunk 2 is frames 32 to 47."""

    def people(frame):
        return [(person(frame, 220), BLUE)] if 20 <= frame < 50 else [(person(frame, 180), RED)]

    scene = Scene(tmp_path, people)
    first, final = scene.estimate(CHUNK_FRAMES)
    neck = scene.joints(final)[:, Joint.NECK]
    is_red = np.array([not 20 <= frame < 50 for frame in range(NUM_FRAMES)])
    np.testing.assert_array_equal(neck[:, 2] > 0, is_red)
    np.testing.assert_allclose(neck[is_red, 0], 180 + 0.5 * np.flatnonzero(is_red), atol=1e-4)
    # By itself the chunk follows blue.
    alone = scene.joints(first)[32:48, Joint.NECK]
    np.testing.assert_allclose(alone[:, 0], 220 + 0.5 * np.arange(32, 48), atol=1e-4)


def test_person_is_found_beside_somebody_who_is_more_in_the_middle_of_the_clip(tmp_path):
    """In chunk 2 blue is the larger: by itself the chunk follows blue. In the whole clip red is there for longer."""

    def people(frame):
        red, blue = (person(frame, 100, 45), RED), (person(frame, 260), BLUE)
        return [blue, red] if 24 <= frame < 56 else [red]

    scene = Scene(tmp_path, people)
    first, final = scene.estimate(CHUNK_FRAMES)
    assert 2 in number_done_again(first, final)
    assert (scene.joints(first)[32:48, Joint.NECK, 0] > 250).all()
    in_one, same = scene.estimate(256)
    assert same == in_one
    np.testing.assert_array_equal(scene.joints(final), scene.joints(in_one))


@pytest.mark.parametrize("swapped", [range(24, 48), range(30, 34), range(32, 48)])
def test_left_and_right_are_put_right_across_chunks(tmp_path, swapped):
    scene = Scene(tmp_path, lambda frame: [(person(frame, 180, is_swapped=frame in swapped), RED)])
    _, final = scene.estimate(CHUNK_FRAMES)
    straight = Scene(tmp_path / "straight", lambda frame: [(person(frame, 180), RED)])
    in_one, _ = straight.estimate(256)
    np.testing.assert_array_equal(scene.joints(final), straight.joints(in_one))
    wrist, other = straight.joints(in_one)[0, [Joint.LEFT_WRIST, MIRRORED[Joint.LEFT_WRIST]], 0]
    assert wrist > other + 50


def test_written_poses_do_not_depend_on_the_order_of_the_work(tmp_path):
    def people(frame):
        return [(person(frame, 220), BLUE)] if 20 <= frame < 50 else [(person(frame, 180), RED)]

    written = []
    for name, order in (("a", 1), ("b", -1)):
        scene = Scene(tmp_path / name, people)
        _, final = scene.estimate(CHUNK_FRAMES, order)
        write_poses(PosePlan("clip", [final], {}), scene.store, scene.folder / "poses")
        written.append((scene.folder / "poses/clip.parquet").read_bytes())
    assert written[0] == written[1]
    table = Table("pose", tmp_path / "a/poses/clip.parquet")
    assert table.frames.tolist() == list(range(NUM_FRAMES))
    # A frame whose joints are somebody else's has nobody's raw points either.
    keypoints = np.array([table.read_cell("keypoints", row) for row in (10, 40)])
    assert keypoints[0].any()
    assert not keypoints[1].any()
