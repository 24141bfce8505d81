"""A method is found by the name of its module, and brings no other method with it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from models import losses, methods
from models.methods.shared.base import MethodOptions
from tests.helpers.repository import ROOT

PROGRAM = """
import json, sys
from models import losses, methods

methods.options_type("byol")
losses.sinkhorn
print(json.dumps([name.removeprefix("models.") for name in sys.modules if name.startswith("models.")]))
"""


@pytest.mark.parametrize("name", methods.NAMES)
def test_each_module_has_options_that_name_it(name):
    kind = methods.options_type(name)
    assert issubclass(kind, MethodOptions)
    assert kind.__annotations__["name"] == f"Literal[{name!r}]"


@pytest.mark.slow
def test_one_method_and_one_loss_bring_no_other():
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert [name for name in loaded if name.startswith("methods.") and "shared" not in name] == ["methods.byol"]
    assert {"losses.assignment", "losses.cosine"} <= set(loaded)
    assert "losses.contrastive" not in loaded


def test_every_loss_can_be_imported_by_its_name():
    assert all(callable(getattr(losses, name)) for name in losses.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nt_xnet'"):
        _ = losses.nt_xnet
