"""The tables of docs/scale.md are those of the simulation, and its arithmetic holds."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.pages import commands, page


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    found = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks" / "scale.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["scale"] = module
    found.loader.exec_module(module)
    return module


def test_the_page_shows_what_the_simulation_says(scale: ModuleType) -> None:
    shown = page("docs/scale.md")
    assert len(scale.PLACE.findall(shown)) == len(scale.TABLES)
    assert scale.filled(shown) == shown, "write it anew: python benchmarks/scale.py --write"


@pytest.mark.slow
def test_the_command_prints_every_table(scale: ModuleType) -> None:
    (line,) = commands("docs/scale.md")
    words = line.split()
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for table in scale.TABLES.values():
        assert "\n".join(table()) in done.stdout


def test_one_server_that_is_never_busy_answers_in_the_time_of_a_text(scale: ModuleType) -> None:
    waits = scale.answer_times(np.arange(50.0), cores=1, per_text=0.25, most=8)
    np.testing.assert_allclose(waits, 0.25)
    together = scale.answer_times(np.zeros(8), cores=1, per_text=0.25, most=8)
    np.testing.assert_allclose(together, 2.0)


def test_a_grid_takes_its_work_or_its_longest_cell(scale: ModuleType) -> None:
    alone = scale.run_grid([(3600.0, 1000.0)] * 32, machines=1, losses_a_day=0)
    assert alone.hours == pytest.approx(2.0)
    assert alone.busy == pytest.approx(1.0)
    wide = scale.run_grid([(3600.0, 1000.0)] * 32, machines=64, losses_a_day=0)
    assert wide.hours == pytest.approx(1.0)
    killed = scale.run_grid([(3600.0, 1000.0)] * 32, machines=1, losses_a_day=8)
    assert killed.repeated > 0
    assert killed.hours > alone.hours
