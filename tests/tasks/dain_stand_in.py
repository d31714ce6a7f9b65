"""A checkout that behaves as DAIN's demo_MiddleBury_slowmotion.py does: its options, places, names and messages.

Its pictures are mixtures of the two: at t the first counts 1 - t. What it shall do wrong, STAND_IN_DO says.
"""

from pathlib import Path

DEMO = r"""
import argparse, json, os, random, shutil, sys, time
import cv2, numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--netName", default="DAIN", choices=["DAIN", "DAIN_slowmotion"])
parser.add_argument("--time_step", type=float, default=0.5)
parser.add_argument("--save_which", "-s", type=int, default=1, choices=[0, 1])
args = parser.parse_args()
do = os.environ.get("STAND_IN_DO", "")
number = str(random.randint(0, 100000))
print("revise the unique id to a random numer " + number)
os.makedirs("./model_weights/" + number + "-Mon")
data, results = "./MiddleBurySet/other-data/", "./MiddleBurySet/other-result-author/"
with open(os.environ["STAND_IN_CALLS"], "a") as calls:
    calls.write(json.dumps({"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "start": time.time(), **vars(args)}) + "\n")
if not os.path.exists(results):
    os.mkdir(results)
if do == "no extension":
    import depthflowprojection_cuda
if not os.path.exists("./model_weights/best.pth"):
    print("**** We don't load any trained weights **************************")
    sys.exit(3)
out = os.path.join(results, str(random.randint(0, 100000)))
os.mkdir(out)
num_frames = int(1.0 / args.time_step) - 1
for name in os.listdir(data):
    print(name)
    os.mkdir(os.path.join(out, name))
    first, second = (os.path.join(data, name, file) for file in ("frame10.png", "frame11.png"))
    a, b = (cv2.imread(path).astype(np.float32) for path in (first, second))
    assert a.shape == b.shape
    if do == "out of memory":
        raise RuntimeError("CUDA out of memory. Tried to allocate 3.00 GiB")
    time.sleep(float(os.environ.get("STAND_IN_SLEEP", "0")))
    print("*****************current image process time \t 0.1s ******************")
    count = 0
    shutil.copy(first, os.path.join(out, name, "{:0>4d}.png".format(count)))
    for k in range(1, num_frames + (do != "one short")):
        count += 1
        picture = a * (1 - k * args.time_step) + b * k * args.time_step
        cv2.imwrite(os.path.join(out, name, "{:0>4d}.png".format(count)), np.round(picture).astype(np.uint8))
    shutil.copy(second, os.path.join(out, name, "{:0>4d}.png".format(count + 1)))
with open(os.environ["STAND_IN_CALLS"] + ".ends", "a") as ends:
    ends.write(f"{time.time()}\n")
"""


def write_checkout(home: Path) -> Path:
    for name, text in {"demo_MiddleBury_slowmotion.py": DEMO, "model_weights/best.pth": "weights"}.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return home
