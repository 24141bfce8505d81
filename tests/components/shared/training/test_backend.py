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
