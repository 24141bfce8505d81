"""`contrastive ui`, which `make ui` calls: the page's address, a taken port, and the page itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import mlflow
import pytest

from components.shared.errors import UserError
from pipelines.__main__ import main
from tests.helpers.repository import ROOT
from tests.helpers.servers import free_port, serving

PAGE = "/#/experiments?workflowType=machine_learning"


@pytest.fixture
def served(in_tmp, monkeypatch):
    """What would be run in place of this process: the program, its arguments, its environment."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    return calls


def test_the_address_opens_on_the_pages_of_training(served, capsys):
    port = free_port()
    main(["ui", "--port", str(port)])
    assert f"MLflow: http://127.0.0.1:{port}{PAGE}\n" in capsys.readouterr().out
    [(program, words, environment)] = served
    assert (program, words[:4]) == (sys.executable, [sys.executable, "-m", "mlflow", "ui"])
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_the_installed_page_knows_the_parameter():
    scripts = Path(mlflow.__file__).parent.glob("server/js/build/static/js/main.*.js")
    assert any('.get("workflowType")' in script.read_text() for script in scripts)


def test_a_taken_port_is_one_line(served):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"^port {port}: is taken, .*`make ui PORT=5001`"):
            main(["ui", "--port", str(port)])
    assert not served


def test_of_a_server_the_address_is_all(served, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example.org/")
    main(["ui"])
    assert capsys.readouterr().out == f"MLflow: https://mlflow.example.org{PAGE}\n"
    assert not served


def test_make_hands_on_the_port():
    done = subprocess.run(["make", "-n", "ui", "PORT=5001"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "python -m pipelines ui --port 5001" in done.stdout


@pytest.mark.slow
def test_the_page_is_served_until_ctrl_c(tmp_path):
    port, env = free_port(), {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    command = (sys.executable, "-m", "pipelines", "ui", "--port", str(port))
    with serving(command, port, "/health", tmp_path / "log", env) as server:
        with urllib.request.urlopen(server.url) as answer:
            assert "MLflow" in answer.read().decode()
        os.killpg(server.process.pid, signal.SIGINT)
        server.process.wait(60)
        assert "Traceback" not in server.log.read_text()
