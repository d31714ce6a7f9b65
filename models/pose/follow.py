"""Keep to one person through a clip: choose among candidates, leave out whoever is somebody else.

A long clip comes in chunks. In each, the tracks of all who are seen are found; link_tracks says which of them are the
clip's person; where a chunk alone followed somebody else, it is followed again from where the person is in the others.

Axes: T frames, J joints (19), D (x px, y px, score), N candidates or tracks; (0, 0, 0) = not seen. Nothing here looks
at left and right, so a swapped pose stays the same person. Lengths are in torsos, so they hold at any size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from models.skeleton import FloatArray, Joint, is_seen, torso_length

Image = npt.NDArray[np.uint8]
Candidate = tuple[FloatArray, FloatArray]  # joints_px_JD, appearance

# Between two frames one person moves less than this many of the clip's usual steps (median over its frames); the limit
# is at least the first, at most the second number of torsos.
USUAL_STEPS = 5.0
MIN_MAX_STEP, MAX_MAX_STEP = 0.35, 1.5
# Unseen for n frames, a person may have gone sqrt(n) times as far, and not farther than this.
MAX_GAP_STEP = 3.0
MAX_APPEARANCE_CHANGE = 0.35  # Hellinger distance 0..1; one person in neighbouring frames: below 0.2
MAX_SIZE_CHANGE = 1.8  # ratio of box diagonals
BINS = (4, 8, 8)  # L, a, b: little on brightness, which shade changes
MIN_TORSO_PX = 8
MAX_TRACKS = 8  # of one chunk, beginning with those that are worth most
SAME_PLACE = 0.5  # torsos; candidates of one frame that lie closer are two detections of one person
END_FRAMES = 16  # how a track looks at an end is the mean over so many of its frames
CERTAIN = 1e6  # what an anchor is worth: more than any chain


class Anchor(NamedTuple):
    """Where the clip's person is, outside of the frames that are looked at.

    position: the frame's index, counted from the first of those; below 0 or past their end.
    joints_px_JD: (19, 3).  look: as appearance gives it.
    """

    position: int
    joints_px_JD: FloatArray
    look: FloatArray


class Track(NamedTuple):
    """Somebody's way through a chunk. first, last: where and how they are at its ends.

    is_followed: True = it is the one that follow_person takes in this chunk.
    worth: 1 to 2 for each of its frames.  torso_px, max_step: the scale of its chunk.
    """

    first: Anchor
    last: Anchor
    is_followed: bool
    worth: float
    torso_px: float
    max_step: float


def appearance(image: Image, joints_px_JD: FloatArray) -> FloatArray:
    """Colours of the torso as a small histogram.

    Args:   image: (H, W, 3) uint8 BGR.  joints_px_JD: (19, 3).
    Returns: (256,) float32 with sum 1; all zeros (unknown: it differs from nothing) where shoulders or hips are not
        seen, or less than MIN_TORSO_PX square pixels of torso lie in the picture.
    """
    corners = [Joint.RIGHT_SHOULDER, Joint.LEFT_SHOULDER, Joint.LEFT_HIP, Joint.RIGHT_HIP]
    unknown = np.zeros(int(np.prod(BINS)), np.float32)
    if not is_seen(joints_px_JD[corners]).all():
        return unknown
    quad_px = joints_px_JD[corners, :2]
    # Only the middle: at the rim there is background, and arms pass over it. A side view has no width: the hull of
    # the four points is thickened to a sixth of the torso.
    quad_px = quad_px.mean(axis=0) + 0.8 * (quad_px - quad_px.mean(axis=0))
    length_px = float(np.linalg.norm(quad_px[:2].mean(axis=0) - quad_px[2:].mean(axis=0)))
    if not 1 <= length_px < max(image.shape) * 2:
        return unknown
    margin = int(length_px / 6) + 1
    low = np.floor(quad_px.min(axis=0)).astype(int) - margin
    high = np.ceil(quad_px.max(axis=0)).astype(int) + margin
    low, high = np.maximum(low, 0), np.minimum(high, (image.shape[1], image.shape[0]))
    if (high <= low).any():
        return unknown
    inside = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    hull = cv2.convexHull(np.round(quad_px - low).astype(np.int32))
    cv2.fillConvexPoly(inside, hull, 1)
    cv2.polylines(inside, [hull], isClosed=True, color=1, thickness=max(1, int(length_px / 12)))
    if inside.sum() < MIN_TORSO_PX:
        return unknown
    lab = cv2.cvtColor(np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]]), cv2.COLOR_BGR2LAB)
    # Skin, cloth and walls crowd round the grey point: the bins divide the middle half of a and b.
    lab[..., 1:] = np.clip(lab[..., 1:], 64, 191)
    ranges = [0, 256, 64, 192, 64, 192]
    histogram = cv2.calcHist([lab], [0, 1, 2], inside, list(BINS), ranges)
    for axis in range(3):  # so that a shade at the edge of a bin does not jump
        padded = np.pad(histogram, [(1, 1) if axis == a else (0, 0) for a in range(3)], mode="edge")
        left, middle, right = (np.take(padded, np.arange(BINS[axis]) + k, axis) for k in range(3))
        histogram = (left + 2 * middle + right) / 4
    histogram = histogram.ravel()
    total = histogram.sum()
    return (histogram / total).astype(np.float32) if total > 0 else unknown


class _Described(NamedTuple):
    """Candidates of all frames in one row; N candidates."""

    frame_N: npt.NDArray[np.intp]
    index_N: npt.NDArray[np.intp]
    centre_px_ND: FloatArray
    box_px_ND: FloatArray  # x0, y0, x1, y1
    root_N: FloatArray  # square root of the histogram
    worth_N: FloatArray  # 1..2, more for a large and well seen person


def follow_person(candidates: Sequence[Sequence[Candidate]], anchors: Sequence[Anchor] = ()) -> npt.NDArray[np.intp]:
    """The same person through the clip: which candidate of each frame, by place, size and appearance in time.

    The chain of candidates is chosen that is worth most: each counts 1 to 2 (more if larger and better seen), less
    what changes between it and the one before. A chain may leave frames out, but no link of it may go too far, look
    too different or change size too much for one person: so a visit to somebody else is left out, however long, if
    the rest of the clip is worth more.

    For an estimator that finds one person, give one candidate a frame: -1 then means that it found nobody, or jumped
    to somebody else.

    Args:   candidates: for each frame its candidates (joints_px_JD (19, 3), appearance); none is allowed.
            anchors: who is to be followed: the chain goes through them, and may find nothing between them.
    Returns: (T,) index of the candidate in its frame; -1 where none is that person.
    """
    chosen_T = np.full(len(candidates), -1, np.intp)
    ahead = max([0, *(-anchor.position for anchor in anchors)])
    behind = max([0, *(anchor.position + 1 - len(candidates) for anchor in anchors)])
    rows: list[list[Candidate]] = (
        [[] for _ in range(ahead)] + [list(row) for row in candidates] + [[] for _ in range(behind)]
    )
    for anchor in anchors:
        rows[anchor.position + ahead] = [(anchor.joints_px_JD, anchor.look)]
    scene = _describe_scene(rows)
    if scene is None:
        return chosen_T
    is_anchor_N = np.isin(scene.all_N.frame_N, [anchor.position + ahead for anchor in anchors])
    worth_N = scene.all_N.worth_N + CERTAIN * is_anchor_N
    for n in _best_chain(scene, worth_N, np.arange(len(worth_N))):
        if not is_anchor_N[n]:
            chosen_T[scene.all_N.frame_N[n] - ahead] = scene.all_N.index_N[n]
    return chosen_T


def find_tracks(candidates: Sequence[Sequence[Candidate]], num_lead: int = 0) -> list[Track]:
    """Everybody's tracks in one chunk: the best chain, then the best of the candidates that are left, and so on.

    Args:   candidates: as of follow_person.
            num_lead: frames at the beginning that belong to the chunk before; tracks are told of the others alone,
                whose positions begin at 0.
    Returns: at most MAX_TRACKS; two detections of one person make one track.
    """
    scene = _describe_scene(candidates)
    if scene is None:
        return []
    all_N = scene.all_N
    tracks: list[Track] = []
    is_left_N = np.ones(len(all_N.frame_N), bool)
    is_followed = True
    while is_left_N.any() and len(tracks) < MAX_TRACKS:
        chain = np.array(_best_chain(scene, all_N.worth_N, np.flatnonzero(is_left_N)))
        for n in chain:
            is_near = np.linalg.norm(all_N.centre_px_ND - all_N.centre_px_ND[n], axis=1) <= SAME_PLACE * scene.torso_px
            is_left_N &= ~((all_N.frame_N == all_N.frame_N[n]) & is_near)
        own = chain[all_N.frame_N[chain] >= num_lead]
        if len(own):
            first, last = (
                Anchor(
                    int(all_N.frame_N[n]) - num_lead,
                    np.asarray(candidates[all_N.frame_N[n]][all_N.index_N[n]][0]),
                    _mean_look(all_N.root_N[near]),
                )
                for n, near in ((own[0], own[:END_FRAMES]), (own[-1], own[-END_FRAMES:]))
            )
            worth = float(all_N.worth_N[own].sum())
            tracks.append(Track(first, last, is_followed, worth, scene.torso_px, scene.max_step))
        is_followed = False
    return tracks


def link_tracks(chunks: Sequence[Sequence[Track]]) -> list[int]:
    """Which track of each chunk is the clip's person: the chain of tracks that is worth most.

    The links are held to what follow_person holds those between two frames to.

    Args:   chunks: each one's tracks, whose positions count from the first frame of the clip.
    Returns: for each chunk the index of its track; -1 where none is that person.
    """
    chosen = [-1] * len(chunks)
    tracks = [(chunk, index, track) for chunk, row in enumerate(chunks) for index, track in enumerate(row)]
    if not tracks:
        return chosen
    ends = [(track.last.position, 0, track.last.joints_px_JD, track.last.look) for _, _, track in tracks]
    starts = [(track.first.position, 0, track.first.joints_px_JD, track.first.look) for _, _, track in tracks]
    all_N = _describe([*ends, *starts])  # the link from track m to n leads from candidate m to candidate N + n
    torso_px_N = np.array([track.torso_px for _, _, track in tracks])
    max_step_N = np.array([track.max_step for _, _, track in tracks])
    chunk_N = np.array([chunk for chunk, _, _ in tracks])

    best_N = np.array([track.worth for _, _, track in tracks])
    origin_N = np.full(len(tracks), -1)
    for n in range(len(tracks)):
        before = np.flatnonzero(chunk_N < chunk_N[n])
        if not len(before):
            continue
        torso_px = np.maximum(torso_px_N[before], torso_px_N[n])
        max_step = np.maximum(max_step_N[before], max_step_N[n])
        through = best_N[before] - _link_costs(all_N, before, len(tracks) + n, torso_px, max_step)
        if through.max() > 0:
            origin_N[n] = before[through.argmax()]
            best_N[n] += through.max()
    n = int(best_N.argmax())
    while n >= 0:
        chosen[tracks[n][0]] = tracks[n][1]
        n = int(origin_N[n])
    return chosen


class _Scene(NamedTuple):
    """All candidates, and what lengths and steps are measured by."""

    all_N: _Described
    torso_px: float
    max_step: float


def _describe_scene(candidates: Sequence[Sequence[Candidate]]) -> _Scene | None:
    usable = [
        (frame, index, joints, look)
        for frame, row in enumerate(candidates)
        for index, (joints, look) in enumerate(row)
        if is_seen(joints).any()
    ]
    if not usable:
        return None
    torso_px = torso_length(np.stack([joints for _, _, joints, _ in usable]))
    all_N = _describe(usable)
    if not np.isfinite(torso_px) or torso_px <= 0:
        torso_px = float(np.median(_diagonals(all_N.box_px_ND))) / 3
    torso_px = max(torso_px, 1.0)
    return _Scene(all_N, torso_px, _max_step(all_N, torso_px))


def _best_chain(scene: _Scene, worth_N: FloatArray, some: npt.NDArray[np.intp]) -> list[int]:
    """The candidates, among some, of the chain that is worth most, in the order of their frames."""
    all_N = scene.all_N
    best = worth_N[some].copy()
    origin = np.full(len(some), -1)
    for k, n in enumerate(some):
        num_before = int(np.count_nonzero(all_N.frame_N[some[:k]] < all_N.frame_N[n]))  # frames come in order
        if not num_before:
            continue
        costs = _link_costs(all_N, some[:num_before], n, scene.torso_px, scene.max_step)
        through = best[:num_before] + worth_N[n] - costs
        if through.max() > best[k]:
            best[k] = through.max()
            origin[k] = through.argmax()
    k, chain = int(best.argmax()), []
    while k >= 0:
        chain.append(int(some[k]))
        k = int(origin[k])
    return chain[::-1]


def _mean_look(root_ND: FloatArray) -> FloatArray:
    """The mean histogram of those that are known; zeros (unknown) where none is."""
    known = root_ND[root_ND.sum(axis=1) > 0] ** 2
    mean: FloatArray = known.mean(axis=0) if len(known) else np.zeros(root_ND.shape[1])
    return mean.astype(np.float32)


def crop_around_track(
    joints_px_TJD: FloatArray,
    is_tracked_T: npt.NDArray[np.bool_],
    size_px: tuple[int, int],
    margin: float = 0.25,
    anchors: Sequence[Anchor] = (),
) -> npt.NDArray[np.intp]:
    """A box for each frame around where the person should be: between tracked frames linear, past them the nearest.

    Args:   joints_px_TJD: (T, 19, 3), read only where is_tracked_T is True.
            anchors: frames outside of these where the person is; there must be one, or a tracked frame.
            size_px: width, height of the picture.  margin: added on each side, as a share of the box's longer side.
    Returns: (T, 4) x0, y0, x1, y1 within the picture, at least one pixel each way.
    """
    places = [(int(frame), joints_px_TJD[frame]) for frame in np.flatnonzero(is_tracked_T)]
    places = sorted([*places, *((each.position, each.joints_px_JD) for each in anchors)], key=lambda place: place[0])
    frames = [frame for frame, _ in places]
    boxes_px = np.stack([_box(joints) for _, joints in places])
    wanted = np.arange(len(joints_px_TJD))
    box_T4 = np.stack([np.interp(wanted, frames, boxes_px[:, side]) for side in range(4)], axis=1)
    grow_T = margin * np.maximum(box_T4[:, 2] - box_T4[:, 0], box_T4[:, 3] - box_T4[:, 1])
    box_T4 += grow_T[:, None] * np.array([-1, -1, 1, 1])
    limit = np.array(size_px)
    low = np.clip(np.floor(box_T4[:, :2]), 0, limit - 1)
    high = np.clip(np.ceil(box_T4[:, 2:]), low + 1, limit)
    return np.concatenate([low, high], axis=1).astype(np.intp)


def _box(joints_px_JD: FloatArray) -> FloatArray:
    points = joints_px_JD[is_seen(joints_px_JD), :2]
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _centre(joints_px_JD: FloatArray) -> FloatArray:
    trunk = joints_px_JD[[Joint.NECK, Joint.MID_HIP]]
    points = trunk if is_seen(trunk).all() else joints_px_JD[is_seen(joints_px_JD)]
    centre: FloatArray = points[:, :2].mean(axis=0)
    return centre


def _diagonals(box_px_ND: FloatArray) -> FloatArray:
    return np.hypot(box_px_ND[..., 2] - box_px_ND[..., 0], box_px_ND[..., 3] - box_px_ND[..., 1])


def _describe(usable: list[tuple[int, int, FloatArray, FloatArray]]) -> _Described:
    joints_NJD = np.stack([joints for _, _, joints, _ in usable])
    boxes = np.stack([_box(joints) for joints in joints_NJD])
    diagonals = _diagonals(boxes)
    size = np.minimum(diagonals / max(float(np.percentile(diagonals, 90)), 1.0), 1.0)
    return _Described(
        frame_N=np.array([frame for frame, _, _, _ in usable]),
        index_N=np.array([index for _, index, _, _ in usable]),
        centre_px_ND=np.stack([_centre(joints) for joints in joints_NJD]),
        box_px_ND=boxes,
        root_N=np.sqrt(np.stack([look for _, _, _, look in usable])),
        worth_N=1 + size * joints_NJD[..., 2].mean(axis=1),
    )


def _max_step(all_N: _Described, torso_px: float) -> float:
    """How far one person moves between neighbouring frames at most, in torsos: by what is usual in this clip."""
    steps = []
    for n in range(len(all_N.frame_N)):
        before = np.flatnonzero(all_N.frame_N == all_N.frame_N[n] - 1)
        if len(before):
            away = np.linalg.norm(all_N.centre_px_ND[before] - all_N.centre_px_ND[n], axis=1)
            steps.append(away.min() / torso_px)
    usual = float(np.median(steps)) if steps else 0.0
    return float(np.clip(USUAL_STEPS * usual, MIN_MAX_STEP, MAX_MAX_STEP))


def _link_costs(
    all_N: _Described,
    before: npt.NDArray[np.intp],
    n: int,
    torso_px: float | FloatArray,
    max_step: float | FloatArray,
) -> FloatArray:
    """What changes from each earlier candidate to candidate n: 0 for nothing, infinite for another person."""
    gap = (all_N.frame_N[n] - all_N.frame_N[before]).astype(float)
    reach = np.maximum(np.minimum(max_step * np.sqrt(gap), MAX_GAP_STEP), max_step)
    step = np.linalg.norm(all_N.centre_px_ND[before] - all_N.centre_px_ND[n], axis=1) / torso_px / reach
    is_known = (all_N.root_N[before].sum(axis=1) > 0) & (all_N.root_N[n].sum() > 0)
    alike = np.minimum(all_N.root_N[before] @ all_N.root_N[n], 1.0)
    change = np.where(is_known, np.sqrt(1 - alike), 0.0) / MAX_APPEARANCE_CHANGE
    ratio = np.abs(np.log(_diagonals(all_N.box_px_ND[before]) / np.maximum(_diagonals(all_N.box_px_ND[n]), 1e-6)))
    ratio = ratio / (np.log(MAX_SIZE_CHANGE) * np.sqrt(gap))
    cost = 0.3 * (step + change + ratio + (1 - _overlap(all_N.box_px_ND[before], all_N.box_px_ND[n])))
    return np.where((step > 1) | (change > 1) | (ratio > 1), np.inf, cost)


def _overlap(boxes_px_ND: FloatArray, box_px_D: FloatArray) -> FloatArray:
    """Intersection over union of each box with one."""
    low = np.maximum(boxes_px_ND[:, :2], box_px_D[:2])
    high = np.minimum(boxes_px_ND[:, 2:], box_px_D[2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(boxes_px_ND[:, 2:] - boxes_px_ND[:, :2], axis=1) + np.prod(box_px_D[2:] - box_px_D[:2])
    overlap: FloatArray = shared / np.maximum(areas - shared, 1e-6)
    return overlap
