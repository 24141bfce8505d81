"""Starting Keras."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.helpers.repository import ROOT


def test_a_backend_that_there_is_not_is_told_in_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "components.pretrain"],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "torchx"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: KERAS_BACKEND: Unable to import backend")
    assert done.stderr.count("\n") == 1


def test_keras_starts_without_what_nothing_uses_and_which_can_still_be_imported():
    code = """
import importlib, sys
from components.shared.training.backend import UNUSED, start_backend
start_backend()
assert "keras" in sys.modules
print(*(name for name in UNUSED if name in sys.modules))
print(*(importlib.import_module(name).__name__ for name in UNUSED))
print(*UNUSED)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded, imported, names = done.stdout.splitlines()
    assert loaded == "" and imported == names


def test_what_came_with_keras_is_not_looked_through_for_garbage():
    code = """
import atexit, gc
from components.shared.errors import exit_cleanly
from components.shared.training.backend import start_backend
start_backend()
kept = gc.get_freeze_count()
print(gc.isenabled(), kept > 100_000)
# a list of a second call's time is not kept for good
later = []
start_backend()
print(gc.get_freeze_count() <= kept)
# called after all that is registered later, so at the very end
atexit.register(lambda: print(not any(one is later for one in gc.get_objects())))
exit_cleanly(lambda: 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 4
