"""Fill in the outputs of docs/lineage.md: each block that begins with `$ inbetween lineage ...` gets what it prints.

python docs/lineage_outputs.py            # after `make demo`, in a clone whose sample is built
python docs/lineage_outputs.py --check    # ends with 1 where a block would change
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/lineage.md"
_BLOCK = re.compile(r"^```text\n\$ (inbetween lineage [^\n]*)\n.*?^```$", re.MULTILINE | re.DOTALL)


def commands_of(page: str) -> list[str]:
    """The commands that a page shows."""
    return [match[1] for match in _BLOCK.finditer(page)]


def fill(page: str, run: list[str], root: Path) -> str:
    """The page with each command's output. run: how to call `inbetween`.

    A command that fails is left out of no page: what it says on stderr stands there.
    """

    def replace(match: re.Match[str]) -> str:
        words = shlex.split(match[1])[1:]
        done = subprocess.run([*run, *words], cwd=root, capture_output=True, text=True, check=False)
        text = done.stdout.rstrip() or done.stderr.strip().splitlines()[-1]
        code = f"\n(exit code {done.returncode})" if done.returncode else ""
        lines = "\n".join(line.rstrip() for line in f"{text}{code}".splitlines())
        return f"```text\n$ {match[1]}\n{lines}\n```"

    return _BLOCK.sub(replace, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=ROOT, help="the clone that is asked")
    args = parser.parse_args()
    page = PAGE.read_text()
    filled = fill(page, [sys.executable, "-m", "flows.cli"], args.root)
    if args.check:
        sys.exit(int(filled != page))
    PAGE.write_text(filled)


if __name__ == "__main__":
    main()
