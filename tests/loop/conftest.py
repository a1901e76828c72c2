"""A few pictures to train on."""

from pathlib import Path

import pytest

from tests.cli.conftest import make_pictures


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training pictures and four for validation; tests must not write into it."""
    return make_pictures(tmp_path_factory.mktemp("data"), {"train": 6, "val": 2})
