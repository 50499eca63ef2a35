"""A door from pytest onto the notebooks, one test each: `pytest dev/tests/test_notebooks.py -k scan`.

`make test` runs them through nbdev_test instead, so that nothing runs twice; the mark `notebooks` leaves these out.
"""
import pytest
from nbdev.test import test_nb as run_nb
from notebooks import ROOT, SETTINGS, notebooks


@pytest.mark.notebooks
@pytest.mark.parametrize('nb', notebooks(), ids=lambda p: p.stem)
def test_notebook(nb):
    ok,_ = run_nb(nb, skip_flags=SETTINGS['tst_flags'].split(), basepath=ROOT)
    assert ok
