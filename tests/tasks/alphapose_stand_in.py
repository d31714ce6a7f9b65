"""A checkout that behaves as AlphaPose's does: its command line, its messages, its result files, its bad habits.

It finds people by the colour of their shirts, in each picture alone. What it shall do wrong, STAND_IN_DO says.
"""

from pathlib import Path

import cv2
import numpy as np

RED, BLUE = (40, 40, 200), (200, 40, 40)
TORSO_PX = 60

DEMO = r"""
import argparse, json, os, sys, threading, time
import cv2, numpy as np

parser = argparse.ArgumentParser()
for name in ("--cfg", "--checkpoint"):
    parser.add_argument(name, required=True)
for name in ("--sp", "--save_img", "--vis", "--showbox", "--profile", "--eval", "--flip", "--debug", "--save_video",
             "--vis_fast", "--pose_flow", "--pose_track"):
    parser.add_argument(name, action="store_true")
for name in ("--detector", "--detfile", "--indir", "--list", "--image", "--outdir", "--format", "--gpus", "--video"):
    parser.add_argument(name, default="")
for name in ("--min_box_area", "--detbatch", "--posebatch", "--qsize", "--webcam"):
    parser.add_argument(name, type=int, default=0)
args = parser.parse_args()
do = os.environ.get("STAND_IN_DO", "")
with open(os.environ["STAND_IN_CALLS"], "a") as calls:
    calls.write(json.dumps({"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), **vars(args)}) + "\n")
assert args.sp and os.path.isfile(args.cfg) and os.path.isfile(args.checkpoint)  # in the checkout: it runs there

def wait_for_ever():  # its threads are no daemons: after an error the program stays
    threading.Thread(target=time.sleep, args=(600,)).start()

for root, _, files in os.walk(args.indir):
    names = sorted(files)
os.makedirs(args.outdir, exist_ok=True)
if do == "no module":
    sys.exit((sys.stderr.write("Traceback (most recent call last):\n  File \"x\", line 1\n"
        "ModuleNotFoundError: No module named 'easydict'\n"), 1)[1])
if do == "unfit":
    wait_for_ever()
    raise RuntimeError("Error(s) in loading state_dict for FastPose:\n\tsize mismatch for conv_out.weight")
print(f"Loading pose model from {args.checkpoint}...")
if do == "detector out of memory":
    def detect():
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 7.79 GiB total capacity)")
    threading.Thread(target=detect).start()
    wait_for_ever()
    time.sleep(600)
if do == "picture":
    def read():
        raise cv2.error("OpenCV(4.5.5) error: (-215:Assertion failed) !_src.empty() in function 'cvtColor'")
    threading.Thread(target=read).start()
    wait_for_ever()
    time.sleep(600)
found = []
try:
    for number, name in enumerate(names, 1):
        if number == 2 and (do == "always out of memory" or (do == "out of memory" and args.posebatch > 16)):
            raise RuntimeError("CUDA out of memory. Tried to allocate 1.00 GiB")
        if number == 2 and do == "error":
            raise ValueError("cannot reshape array of size 0")
        if number == 2 and do == "silent":
            time.sleep(600)
        if number == 2 and do == "killed":
            os.kill(os.getpid(), 9)
        image = cv2.imread(os.path.join(args.indir, name))
        people = []
        for colour in ((40, 40, 200), (200, 40, 40)):
            ys, xs = np.nonzero((image == colour).all(axis=2))
            if len(xs):
                x, y, unit = float(xs.mean()), float(ys.min()), float(ys.max() - ys.min() + 1)
                points = [[x + (i % 12 - 6) * unit / 30, y + (i // 12) * unit / 12, 0.7] for i in range(136)]
                body = {0: (0, -.4), 17: (0, -.7), 18: (0, 0), 5: (.3, 0), 6: (-.3, 0), 7: (.6, .3), 8: (-.6, .3),
                        9: (.8, .6), 10: (-.8, .6), 11: (.2, 1), 12: (-.2, 1), 19: (0, 1),
                        13: (.3, 1.8), 14: (-.3, 1.8), 15: (.4, 2.4), 16: (-.4, 2.4), 20: (.5, 2.5), 21: (-.5, 2.5)}
                for i, (dx, dy) in body.items():
                    points[i] = [x + dx * unit, y + dy * unit, 1.3 if i < 20 else 0.9]
                points[115:136] = [[x, y, 0.01]] * 21  # a hand that is not there
                points[26] = [float("nan"), y, 0.5]
                people.append(points)
        found.append((name, people))
        sys.stderr.write(f"\r{100 * number // len(names):3d}%|##  | {number}/{len(names)} [00:01<00:00, 17.2it/s]")
        sys.stderr.flush()
except Exception as e:
    print(repr(e))
    print("An error as above occurs when processing the images, please check it")
    wait_for_ever()
    sys.exit()
sys.stderr.write("\n")
print("===========================> Finish Model Running.")
rows, by_name = [], {}
for name, people in found[::-1] if do != "nobody" else []:  # not in the order of the pictures
    for points in people:
        keypoints = [number for point in points for number in point]
        if do == "17 points":
            keypoints = keypoints[:51]
        rows.append({"image_id": name, "category_id": 1, "keypoints": keypoints, "score": 2.9,
                     "box": [1.0, 2.0, 3.0, 4.0], "idx": [0.0]})
        if args.format in ("cmu", "open"):
            keypoints = keypoints + [(a + b) / 2 for a, b in zip(keypoints[15:18], keypoints[18:21])]
            eighteen = [n for i in (0, 51, 18, 24, 30, 15, 21, 27, 36, 42, 48, 33, 39, 45, 6, 3, 12, 9)
                        for n in keypoints[i:i + 3]]
            kind, key = ("bodies", "joints") if args.format == "cmu" else ("people", "pose_keypoints_2d")
            picture = by_name.setdefault(name, {"version": "AlphaPose v0.3", kind: []})
            picture[kind].append({key: eighteen})
with open(os.path.join(args.outdir, "alphapose-results.json"), "w") as file:
    file.write(json.dumps(by_name if args.format in ("cmu", "open") else rows))
if args.format in ("cmu", "open"):
    os.mkdir(os.path.join(args.outdir, "sep-json"))
    for name in by_name:
        with open(os.path.join(args.outdir, "sep-json", name.split(".")[0] + ".json"), "w") as file:
            file.write(json.dumps(by_name[name]))
print("Results have been written to json.")
sys.stderr.write("Exception ignored in: <function f>\nTraceback (most recent call last):\nOSError: closed\n")
"""


def write_checkout(home: Path, num_points: int = 136) -> Path:
    """The stand-in's folder: script, config, checkpoint, detector's weights."""
    for name, text in {
        "scripts/demo_inference.py": DEMO,
        "configs/halpe.yaml": f"DATA_PRESET:\n  TYPE: simple\n  NUM_JOINTS: {num_points}\n",
        "pretrained_models/halpe.pth": "weights",
        "detector/yolo/data/yolov3-spp.weights": "weights",
    }.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return home


def draw(people: list[tuple[float, tuple[int, int, int]]], size: tuple[int, int] = (260, 400)) -> np.ndarray:
    """A picture of shirts, TORSO_PX high, their upper edge at y = 60: (x of the middle, colour) of each."""
    image = np.full((*size, 3), 128, np.uint8)
    for x, colour in people:
        image[60 : 60 + TORSO_PX, int(x) - 15 : int(x) + 15] = colour
    return image


def write_pictures(folder: Path, people: dict[str, list[tuple[float, tuple[int, int, int]]]]) -> Path:
    folder.mkdir()
    for name, listed in people.items():
        cv2.imwrite(str(folder / name), draw(listed))
    return folder
