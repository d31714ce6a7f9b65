"""The house rules that a tool can hold: imports run flows -> tasks -> models, and nobody imports what is not theirs."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("models", "tasks", "flows")
ONLY_FLOWS = {"prefect", "dvc", "dvclive", "typer", "pydantic", "ray"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_run_one_way(layer):
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    for path in (ROOT / layer).rglob("*.py"):
        tops = {name.split(".")[0] for name in imported(path)}
        assert not tops & above, f"{path.relative_to(ROOT)} imports {tops & above}"
        if layer != "flows":
            assert not tops & ONLY_FLOWS, f"{path.relative_to(ROOT)} imports {tops & ONLY_FLOWS}"
            assert "params.yaml" not in path.read_text().replace("in params.yaml", "").replace("of params.yaml", "")


def test_nothing_names_an_index_or_a_machine():
    for path in [
        *ROOT.glob("*.*"),
        *(p for d in ("flows", "tasks", "models", "docs", "params") for p in (ROOT / d).rglob("*.*")),
    ]:
        if path.is_file() and path.suffix in {".py", ".txt", ".toml", ".md", ".yaml", ".sh", ".lock"}:
            text = path.read_text()
            assert "index-url" not in text, path
            assert "/simple/" not in text, path
