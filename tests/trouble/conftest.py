"""The stage of all troubles."""

from __future__ import annotations

import pytest

from trouble.stage import Stage


@pytest.fixture(scope="session")
def stage(warm):
    made = Stage(warm)
    yield made
    made.close()
