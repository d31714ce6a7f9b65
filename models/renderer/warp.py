"""Training-free, pose-guided in-between frames: every bone carries its pixels from both keys to the pose at t.

Axes: H, W the region of interest, C colour, J joints, D (x, y) in px or (x, y, score), K the two keys, B bones.
Pictures are BGR uint8 HWC.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from models.renderer.flow import FlowPair, FlowResult
from models.skeleton import BONES, Joint

FloatArray = npt.NDArray[np.floating]
ImageArray = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

J = Joint
_TORSO = (J.RIGHT_SHOULDER, J.LEFT_SHOULDER, J.LEFT_HIP, J.RIGHT_HIP)


class _Limb(NamedTuple):
    """A bone that carries pixels: its joints and how far its pull reaches, in torso lengths."""

    start: Joint
    end: Joint
    width: float


LIMBS = (
    _Limb(J.NECK, J.NOSE, 0.20),
    _Limb(J.RIGHT_SHOULDER, J.RIGHT_ELBOW, 0.13),
    _Limb(J.RIGHT_ELBOW, J.RIGHT_WRIST, 0.10),
    _Limb(J.RIGHT_WRIST, J.RIGHT_HAND, 0.09),
    _Limb(J.LEFT_SHOULDER, J.LEFT_ELBOW, 0.13),
    _Limb(J.LEFT_ELBOW, J.LEFT_WRIST, 0.10),
    _Limb(J.LEFT_WRIST, J.LEFT_HAND, 0.09),
    _Limb(J.RIGHT_HIP, J.RIGHT_KNEE, 0.17),
    _Limb(J.RIGHT_KNEE, J.RIGHT_ANKLE, 0.13),
    _Limb(J.RIGHT_ANKLE, J.RIGHT_BIG_TOE, 0.09),
    _Limb(J.LEFT_HIP, J.LEFT_KNEE, 0.17),
    _Limb(J.LEFT_KNEE, J.LEFT_ANKLE, 0.13),
    _Limb(J.LEFT_ANKLE, J.LEFT_BIG_TOE, 0.09),
)
_TORSO_WIDTH = 0.14
_MATTE_REACH = 1.1


class PairInterpolator(Protocol):
    """Two pictures, and any moment between them."""

    def at(self, t: float) -> FlowResult: ...


BaseInterpolator = Callable[[ImageArray, ImageArray], PairInterpolator]


@dataclass(frozen=True)
class WarpSettings:
    width_scale: float = 0.85
    support_sigmas: float = 3.5
    margin: float = 0.6
    matte_low: float = 0.15
    matte_range: float = 0.6
    bone_gain: float = 8.0
    torso_stiffness: float = 0.05
    person_matte: float = 0.2
    background_near: float = 0.04
    background_far: float = 0.10
    gate_low: float = 0.127
    gate_high: float = 0.27
    gate_grow: float = 0.09
    gate_sigma: float = 0.07
    trust_sigma: float = 0.11
    trust_low: float = 7.0
    trust_high: float = 17.5
    content_low: float = 2.0
    content_high: float = 6.0
    gated: bool = True
    phantom: float = 0.0
    head: str = 'bone'
    fixed_px: float = 0.5


def ramp(v, lo, hi):
    return np.clip((v - lo) / (hi - lo), 0.0, 1.0)


class PoseFlow(NamedTuple):
    offsets_KHWD: Float32Array
    density_HW: Float32Array


class Box(NamedTuple):
    left: int
    top: int
    right: int
    bottom: int

    def cut(self, a):
        return a[self.top : self.bottom, self.left : self.right]


def pose_flow(joints_t_JD, key_joints_KJD, torso_px, box, s):
    h, w = box.bottom - box.top, box.right - box.left
    acc = np.zeros((2, h, w, 2), np.float32)
    den = np.zeros((h, w), np.float32)
    seen = (joints_t_JD[:, 2] > 0) & (key_joints_KJD[..., 2] > 0).all(0)
    reach = s.support_sigmas * s.width_scale * torso_px

    def grid(lo, hi, width):
        pad = reach * width
        x0 = int(max(box.left, np.floor(lo[0] - pad)))
        y0 = int(max(box.top, np.floor(lo[1] - pad)))
        x1 = int(min(box.right, np.ceil(hi[0] + pad) + 1))
        y1 = int(min(box.bottom, np.ceil(hi[1] + pad) + 1))
        return x0, y0, x1, y1

    def add(b, weight, targets, X, Y):
        sl = (slice(b[1] - box.top, b[3] - box.top), slice(b[0] - box.left, b[2] - box.left))
        den[sl] += weight
        for k in (0, 1):
            acc[k][sl] += weight[..., None] * np.stack([targets[k][0] - X, targets[k][1] - Y], -1)

    def ends(limb):
        st, en = limb.start, limb.end
        trip = [joints_t_JD, *key_joints_KJD]
        if en in (J.LEFT_HAND, J.RIGHT_HAND) and seen[st] and not seen[en] and s.phantom:
            el = J.LEFT_ELBOW if en == J.LEFT_HAND else J.RIGHT_ELBOW
            if not seen[el]:
                return None
            out = []
            for a in trip:
                v = a[st, :2] - a[el, :2]
                v = v / max(np.linalg.norm(v), 1e-6) * s.phantom * torso_px
                out.append((a[st, :2], a[st, :2] + v))
            return out
        if not (seen[st] and seen[en]):
            return None
        if en == J.NOSE and s.head == 'torso':
            # translation of nose, rotation with the trunk
            if not seen[J.MID_HIP]: return None
            out = []
            for a in trip:
                v = a[J.NECK, :2] - a[J.MID_HIP, :2]
                v = v / max(np.linalg.norm(v), 1e-6) * .25 * torso_px
                out.append((a[J.NOSE, :2]-v, a[J.NOSE, :2]))
            return out
        if en == J.NOSE and s.head == 'still':
            v=np.array([0,-.25*torso_px])
            return [(a[J.NOSE, :2]-v, a[J.NOSE, :2]) for a in trip]
        return [(a[st, :2], a[en, :2]) for a in trip]

    for limb in LIMBS:
        e = ends(limb)
        if e is None:
            continue
        (p, q) = e[0]
        b = grid(np.minimum(p, q), np.maximum(p, q), limb.width)
        if b[2] <= b[0] or b[3] <= b[1]:
            continue
        X, Y = np.meshgrid(np.arange(b[0], b[2], dtype=np.float32), np.arange(b[1], b[3], dtype=np.float32))
        d = q - p
        l = max(float(np.hypot(*d)), 1e-3)
        u = d / l
        dx, dy = X - np.float32(p[0]), Y - np.float32(p[1])
        along = dx * np.float32(u[0]) + dy * np.float32(u[1])
        perp = dy * np.float32(u[0]) - dx * np.float32(u[1])
        a = np.clip(along, 0, np.float32(l))
        sig = limb.width * s.width_scale * torso_px
        wt = np.exp(-((along - a) ** 2 + perp**2) * np.float32(0.5 / sig**2))
        tg = []
        for pk, qk in e[1:]:
            dk = qk - pk
            lk = max(float(np.hypot(*dk)), 1e-3)
            uk = dk / lk
            ak = a * np.float32(lk / l) + (along - a)
            tg.append(
                (
                    np.float32(pk[0]) + ak * np.float32(uk[0]) - perp * np.float32(uk[1]),
                    np.float32(pk[1]) + ak * np.float32(uk[1]) + perp * np.float32(uk[0]),
                )
            )
        add(b, wt, tg, X, Y)
    if seen[list(_TORSO)].all():
        P = joints_t_JD[list(_TORSO), :2]
        b = grid(P.min(0), P.max(0), _TORSO_WIDTH)
        if b[2] > b[0] and b[3] > b[1]:
            m = np.ones((b[3] - b[1], b[2] - b[0]), np.uint8)
            hull = cv2.convexHull(P.astype(np.float32))
            cv2.fillConvexPoly(m, np.rint((hull - [b[0], b[1]]) * 16).astype(np.int32), 0, shift=4)
            dist = cv2.distanceTransform(m, cv2.DIST_L2, 5)
            sig = _TORSO_WIDTH * s.width_scale * torso_px
            wt = np.exp(-(dist**2) * np.float32(0.5 / sig**2))
            X, Y = np.meshgrid(np.arange(b[0], b[2], dtype=np.float32), np.arange(b[1], b[3], dtype=np.float32))
            tg = []
            c = P.mean(0)
            for k in (0, 1):
                Q = key_joints_KJD[k][list(_TORSO), :2]
                ck = Q.mean(0)
                A = fit_affine(P - c, Q - ck, s.torso_stiffness * torso_px**2).astype(np.float32)
                tg.append(
                    (
                        np.float32(ck[0]) + A[0, 0] * (X - np.float32(c[0])) + A[0, 1] * (Y - np.float32(c[1])),
                        np.float32(ck[1]) + A[1, 0] * (X - np.float32(c[0])) + A[1, 1] * (Y - np.float32(c[1])),
                    )
                )
            add(b, wt, tg, X, Y)
    acc /= np.maximum(den, 1e-6)[None, ..., None]
    return PoseFlow(acc, den)


def fit_affine(P, Q, ridge):
    n = max((P**2).sum(), 1e-6)
    a = (P * Q).sum() / n
    b = (P[:, 0] * Q[:, 1] - P[:, 1] * Q[:, 0]).sum() / n
    S = np.array([[a, -b], [b, a]])
    M = P.T @ P + ridge * np.eye(2)
    return np.linalg.solve(M, P.T @ Q + ridge * S.T).T


def draw_matte(joints_JD, torso_px, shape):
    m = np.zeros(shape, np.uint8)
    seen = joints_JD[:, 2] > 0
    pt = lambda p: tuple(int(v) for v in np.rint(p[:2] * 16))
    for l in LIMBS:
        if seen[l.start] and seen[l.end]:
            cv2.line(
                m, pt(joints_JD[l.start]), pt(joints_JD[l.end]), 255, max(1, round(l.width * _MATTE_REACH * 2 * torso_px)),
                cv2.LINE_8, 4,
            )
    if seen[list(_TORSO)].all():
        P = joints_JD[list(_TORSO), :2]
        cv2.fillConvexPoly(m, np.rint(cv2.convexHull(P.astype(np.float32)) * 16).astype(np.int32), 255, shift=4)
        cv2.polylines(m, [np.rint(cv2.convexHull(P.astype(np.float32))).astype(np.int32)], True, 255, max(1, round(.2 * torso_px)))
    return cv2.GaussianBlur(m.astype(np.float32) / 255, (0, 0), max(0.5, 0.03 * torso_px))


class WarpPair:
    def __init__(self, images, joints_KJD, mattes, torso_px, base=FlowPair, plate=None, settings=None):
        s = self.s = settings or WarpSettings()
        self.images = images
        self.joints = np.asarray(joints_KJD, np.float64)
        self.L = torso_px
        self.base = base
        self.plate = plate
        self.pair = base(*images)
        h, w = images[0].shape[:2]
        self.shape = (h, w)
        self.mattes = [
            (draw_matte(j, torso_px, (h, w)) if m is None else m.astype(np.float32))
            for m, j in zip(mattes or (None, None), self.joints)
        ]
        both = (self.joints[..., 2] > 0).all(0)
        d = np.linalg.norm(self.joints[0, :, :2] - self.joints[1, :, :2], axis=1)
        self.moves = bool(both.any()) and d[both].max() > s.gate_low * torso_px
        if self.moves:
            self.vis = []
            for m in self.mattes:
                dist = cv2.distanceTransform((m <= s.person_matte).astype(np.uint8), cv2.DIST_L2, 5)
                self.vis.append(ramp(dist / torso_px, s.background_near, s.background_far).astype(np.float32))

    def at(self, joints_t, t, debug=None):
        s, L = self.s, self.L
        R = self.pair.at(t)
        if t <= 0 or t >= 1 or not self.moves:
            return R.image
        box = self._box(joints_t)
        if box is None:
            return R.image
        flow = pose_flow(joints_t, self.joints, L, box, s)
        X, Y = np.meshgrid(
            np.arange(box.left, box.right, dtype=np.float32), np.arange(box.top, box.bottom, dtype=np.float32)
        )
        bg = self._background(box, t, box.cut(R.image).astype(np.float32))
        posed = []
        near = np.clip(s.bone_gain * flow.density_HW, 0, 1)
        for k in (0, 1):
            f = flow.offsets_KHWD[k]
            mx, my = X + f[..., 0], Y + f[..., 1]
            a = cv2.remap(self.mattes[k], mx, my, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            a = (np.clip((a - s.matte_low) / s.matte_range, 0, 1) * near)[..., None]
            c = cv2.remap(self.images[k], mx, my, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            posed.append(np.clip(c * a + bg * (1 - a) + 0.5, 0, 255).astype(np.uint8))
        Q = self.base(*posed).at(t)
        out = R.image.copy()
        if s.gated:
            df = np.linalg.norm(flow.offsets_KHWD[0] - flow.offsets_KHWD[1], axis=-1) / L
            g = np.where(flow.density_HW > 0.01, ramp(df, s.gate_low, s.gate_high), 0).astype(np.float32)
            r = max(1, round(s.gate_grow * L))
            g = cv2.dilate(g, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1)))
            g = cv2.GaussianBlur(g, (0, 0), s.gate_sigma * L)
            eq = self._diff(Q.warped_0, Q.warped_1)
            er = self._diff(box.cut(R.warped_0), box.cut(R.warped_1))
            g *= 1 - ramp(eq - 0.5 * er, s.trust_low, s.trust_high)
            g *= ramp(er, s.content_low, s.content_high)
            g = g[..., None]
        else:
            g = np.ones((*flow.density_HW.shape, 1), np.float32)
        box.cut(out)[:] = np.clip(box.cut(R.image) * (1 - g) + Q.image * g + 0.5, 0, 255).astype(np.uint8)
        if debug is not None:
            debug.update(R=R, Q=Q, posed=posed, bg=bg, g=g, box=box, flow=flow)
        return out

    def _diff(self, a, b):
        return cv2.GaussianBlur(cv2.absdiff(a, b).mean(2, dtype=np.float32), (0, 0), self.s.trust_sigma * self.L)

    def _background(self, box, t, R):
        s = self.s
        v0, v1 = (box.cut(v)[..., None] for v in self.vis)
        w0, w1 = (1 - t) * v0, t * v1
        tot = w0 + w1
        hole = 1 - np.maximum(v0, v1)
        mix = (w0 * box.cut(self.images[0]) + w1 * box.cut(self.images[1])) / np.maximum(tot, 1e-6)
        fill = R if self.plate is None else box.cut(self.plate)
        return mix * (1 - hole) + fill * hole

    def _box(self, joints_t):
        A = np.stack([joints_t, *self.joints])
        A = A[A[..., 2] > 0]
        if not len(A):
            return None
        lo = np.floor(A[:, :2].min(0) - self.s.margin * self.L).astype(int)
        hi = np.ceil(A[:, :2].max(0) + self.s.margin * self.L).astype(int)
        h, w = self.shape
        b = Box(max(0, lo[0]), max(0, lo[1]), min(w, hi[0]), min(h, hi[1]))
        return b if b.right > b.left and b.bottom > b.top else None
