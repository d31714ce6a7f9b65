from pathlib import Path

import pytest

from tests.dvc_project import copy_dvc_project, make_dvc_project


@pytest.fixture(scope="session")
def made_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dvc_project(tmp_path_factory.mktemp("made") / "project")


@pytest.fixture
def project(made_project: Path, tmp_path: Path) -> Path:
    return copy_dvc_project(made_project, tmp_path / "project")
