"""The review against a real SQLite registry: what reviewers do, and what they are told."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.shared.errors import UserError
from components.shared.params import composing
from components.shared.params.composing import write_params
from components.shared.registry.versions import find_champion, resolve
from components.shared.tracking.client import connect
from pipelines.__main__ import main
from tests.helpers import reviewed
from tests.helpers.repository import ROOT, make_root


@pytest.fixture(scope="module")
def logged(tracking_uri, tmp_path_factory):
    """A real logged model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("logged"))
        return reviewed.log_model("contrastive-reviewed")


@pytest.fixture
def client(tracking_uri):
    import mlflow

    return mlflow.MlflowClient()


@pytest.fixture
def name(request, logged, in_tmp):
    """A model of three versions, the third challenger; named after the test, because all share a registry."""
    connect()
    name = "m-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    for digest in "123":
        reviewed.put_up(name, logged, digest)
    return name


@pytest.fixture
def review(name, capsys):
    """Run the command line in this process; returns what it printed."""

    def run(*arguments, model=name, status=0):
        capsys.readouterr()
        assert (main(["review", arguments[0], "--model", model, *arguments[1:]]) or 0) == status
        printed = capsys.readouterr()
        return printed.err if status else printed.out

    return run


def aliases(client, name):
    return {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}


def tags(client, name, number):
    return client.get_model_version(name, number).tags


def statuses(review, **options):
    return {row["version"]: row["status"] for row in json.loads(review("list", "--json", **options))["versions"]}


def test_approving_moves_the_champion_and_keeps_the_one_before(name, review, client, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ben")
    assert review("approve", "2", "--reason", "first").startswith("approved version 2\n")
    out = review("approve", "3", "--reason", " better  on\ndots ", "--reviewer", "anna")
    assert out.startswith("approved version 3 in place of version 2\n")
    assert "anna (account ben), 2" in out
    assert aliases(client, name) == {"champion": "3", "previous-champion": "2"}
    now = tags(client, name, "3")
    assert now["review.status"] == "approved"
    assert (now["review.by"], now["review.reason"]) == ("anna", "better on dots")
    assert now["review.at"].endswith("Z")
    assert tags(client, name, "2")["review.by"] == "ben"
    records = [key for key in client.get_registered_model(name).tags if key.startswith("review.log.")]
    assert len(records) == 2
    assert statuses(review) == {"3": "champion", "2": "previous-champion", "1": "open"}
    assert find_champion(name).version == "3"


def test_the_list_shows_all_side_by_side(name, review):
    review("approve", "1", "--reason", "first", "--reviewer", "anna")
    lines = review("list").splitlines()
    assert lines[2].split() == ["version", "status", "gate", "accuracy", "gain", "decided"]
    assert lines[3].split()[:5] == ["3", "challenger", "passed", "69.2", "%"]
    assert "69.2 % (67.1 to 71.3)" in lines[3]
    assert "+24.4 points (+20.9 to +27.7)" in lines[3]
    assert lines[4].split()[:3] == ["1", "champion", "passed"] and lines[4].endswith(" anna")
    assert lines[5].split()[:3] == ["2", "open", "passed"]
    assert lines[-1] == "next        contrastive review show 3"


def test_the_list_of_many_shows_the_newest_and_those_that_count(name, review, client, logged):
    review("approve", "1", "--reason", "first")
    review("approve", "3", "--reason", "better")
    for digest in "456":
        reviewed.put_up(name, logged, digest)
    assert "older ones" not in review("list")
    short = review("list", "--last", "2")
    assert "older ones: contrastive review list --last 20" in short
    assert [line.split()[:2] for line in short.splitlines()[3:7]] == [
        *(["6", "challenger"], ["3", "champion"], ["1", "previous-champion"], ["5", "open"])
    ]
    # nobody but the list asks for so few
    assert "rejected version 2" in review("reject", "2", "--reason", "old")


def test_the_list_of_many_asks_for_no_former_champion_but_the_last(name, review, client, logged, monkeypatch):
    import mlflow

    for number in "123":
        review("approve", number, "--reason", f"the one after {int(number) - 1}")
    for digest in "45":
        reviewed.put_up(name, logged, digest)
    asked, ask = [], mlflow.MlflowClient.get_model_version

    def get_model_version(self, model, number):
        asked.append(number)
        return ask(self, model, number)

    monkeypatch.setattr(mlflow.MlflowClient, "get_model_version", get_model_version)
    shown = json.loads(review("list", "--last", "1", "--json"))
    assert [row["version"] for row in shown["versions"]] == ["5", "3", "2"]
    # there may be hundreds of them
    assert sorted(asked) == ["2", "3"]
    # who the last one was is known without its alias
    client.delete_registered_model_alias(name, "champion")
    shown = json.loads(review("list", "--last", "1", "--json"))
    assert shown["notes"][1].startswith("champion was moved from version 3 to no version")


def test_the_list_of_many_with_a_production_model(name, review, client, logged):
    production = f"{name}-production"
    review("approve", "1", "--reason", "first", "--production-model", production)
    reviewed.put_up(name, logged, "4")
    found = json.loads(review("list", "--last", "1", "--json", "--production-model", production))
    assert (found["champion"], found["challenger"]) == ("1", "4")
    assert [row["version"] for row in found["versions"]] == ["4", "1"]


def test_list_for_programs(name, review):
    review("approve", "2", "--reason", "first", "--reviewer", "anna")
    found = json.loads(review("list", "--json"))
    assert (found["model"], found["champion"], found["challenger"]) == (name, "2", "3")
    assert found["previous_champion"] is None
    two = next(row for row in found["versions"] if row["version"] == "2")
    assert (two["blessed"], two["gain"], two["gain_low"], two["accuracy"]) == (True, 0.244, 0.209, 0.692)
    assert (two["accuracy_low"], two["accuracy_high"], two["weaker"]) == (0.671, 0.713, None)
    assert two["decision"]["reason"] == "first"


@pytest.mark.parametrize("verdict", ["not blessed", None])
def test_a_version_whose_gate_did_not_pass_takes_an_override_that_goes_on_record(
    name, review, client, logged, verdict
):
    reviewed.put_up(name, logged, "4", verdict=verdict)
    with pytest.raises(UserError, match=r"version 4: .*gate.*--override") as caught:
        review("approve", "4", "--reason", "please")
    assert "\n" not in str(caught.value)
    assert aliases(client, name) == {"challenger": "4"}
    assert "overridden" in review("approve", "4", "--reason", "the old one is broken", "--override")
    assert aliases(client, name) == {"champion": "4"}
    assert "gate" in tags(client, name, "4")["review.reason"]
    assert "overridden" in review("list")
    assert "overridden" in review("show", "4")
    assert "although" in review("history")
    assert json.loads(review("history", "--json"))[0]["override"]


def test_rejecting_is_on_record_and_takes_the_challenger_away(name, review, client):
    assert "rejected version 3" in review("reject", "3", "--reason", "confuses dots", "--reviewer", "anna")
    assert aliases(client, name) == {}
    assert tags(client, name, "3")["review.status"] == "rejected"
    assert statuses(review)["3"] == "rejected"
    with pytest.raises(UserError, match=r"rejected by anna: confuses dots.*--override"):
        review("approve", "3", "--reason", "please")
    assert "was rejected already, by anna" in review("reject", "3", "--reason", "again")
    assert len(json.loads(review("history", "--json"))) == 1
    review("approve", "3", "--reason", "looked again", "--override")
    assert statuses(review)["3"] == "champion"


def test_rolling_back_goes_back_one_champion_each_time_and_then_says_so(name, review, client):
    for number in "123":
        review("approve", number, "--reason", f"approve {number}")
    out = review("rollback", "--reason", "slow")
    assert out.startswith("rolled back from version 3 to version 2\n")
    assert aliases(client, name) == {"champion": "2", "previous-champion": "1"}
    assert tags(client, name, "3")["review.status"] == "rolled back"
    review("rollback")
    assert aliases(client, name) == {"champion": "1"}
    with pytest.raises(UserError, match=r"no previous champion.*approve.*withdraw"):
        review("rollback")
    assert statuses(review) == {"1": "champion", "2": "rolled-back", "3": "rolled-back"}
    review("approve", "3", "--reason", "it was the network")
    assert aliases(client, name) == {"champion": "3", "previous-champion": "1"}
    review("rollback")
    assert aliases(client, name) == {"champion": "1"}
    whats = [event["what"] for event in json.loads(review("history", "--json"))]
    assert whats[2:5] == [
        "approved version 3 in place of version 2",
        "rolled back from version 3 to version 2",
        "rolled back from version 2 to version 1",
    ]


def test_a_sole_bad_champion_is_withdrawn_and_rolling_back_finds_the_one_before(name, review, client):
    review("approve", "1", "--reason", "first")
    out = review("withdraw", "1", "--reason", "wrong labels", "--reviewer", "anna")
    assert out.startswith("withdrew version 1\non record   anna")
    assert aliases(client, name) == {"challenger": "3"}
    assert find_champion(name).version is None
    assert tags(client, name, "1")["review.status"] == "withdrawn"
    assert statuses(review) == {"1": "withdrawn", "2": "open", "3": "challenger"}
    assert "no version is champion" in review("list")
    with pytest.raises(UserError, match="no previous champion"):
        review("rollback")
    review("approve", "2", "--reason", "second")
    review("approve", "3", "--reason", "third")
    review("withdraw", "3", "--reason", "slow")
    assert aliases(client, name) == {"previous-champion": "2"}
    assert review("rollback").startswith("rolled back from no champion to version 2\n")
    assert aliases(client, name) == {"champion": "2"}
    whats = [event["what"] for event in json.loads(review("history", "--json"))]
    assert whats == [
        "approved version 1",
        "withdrew version 1",
        "approved version 2",
        "approved version 3 in place of version 2",
        "withdrew version 3",
        "rolled back from no champion to version 2",
    ]


def test_what_can_not_be_decided_is_told_in_one_line_and_changes_nothing(name, review, client):
    review("approve", "1", "--reason", "first")
    before = client.get_registered_model(name).tags, aliases(client, name)
    cases = [
        (["approve", "9", "--reason", "x"], "there is no version 9; versions: 1, 2, 3"),
        (["approve", "2", "--reason", "  "], "--reason: has 0 characters; 1 to 2,000"),
        (["reject", "2", "--reason", ""], "--reason: has 0 characters"),
        (["approve", "2", "--reason", "x" * 3000], "--reason: has 3,000 characters"),
        (["approve", "two", "--reason", "x"], "Invalid value for 'N': Input should be a valid integer"),
        (["approve", "0", "--reason", "x"], "Invalid value for 'N': Input should be greater than or equal to 1"),
        (["reject", "1", "--reason", "x"], "version 1 is champion; first `rollback`, `withdraw` it"),
        (["withdraw", "2", "--reason", "x"], "version 2 is not champion, version 1 is"),
        (["rollback"], "no previous champion"),
        (["show", "9"], "there is no version 9"),
        (["approve", "2", "--reason", "x", "--reviewer", " "], "--reviewer: has 0 characters"),
        (["list", "--production-model", name], "is --model too"),
        (["list", "--production-model", "a'b"], "without quotes"),
    ]
    for arguments, words in cases:
        with pytest.raises(UserError) as caught:
            review(*arguments)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert "version 1 is champion already; nothing was changed" in review("approve", "1", "--reason", "again")
    assert (client.get_registered_model(name).tags, aliases(client, name)) == before
    with pytest.raises(UserError, match="the registry has no model nobody; run the pipeline"):
        review("list", model="nobody")


def test_a_rejected_version_is_no_place_to_go_back_to(name, review):
    for number in "12":
        review("approve", number, "--reason", "x")
    review("reject", "1", "--reason", "wrong labels")
    with pytest.raises(UserError, match="version 1 was champion before, but was rejected since"):
        review("rollback")


def test_show_has_card_checks_decisions_and_where_the_report_is(name, review, client, logged, tmp_path):
    run = reviewed.evaluation_run("contrastive-reviewed", tmp_path / "evaluation", blessed=False)
    reviewed.put_up(name, logged, "4", verdict="not blessed", evaluation_run=run)
    review("reject", "4", "--reason", "too weak", "--reviewer", "anna")
    out = review("show", "4")
    assert "version     4\nstatus      rejected\ngate        not passed\n" in out
    assert "| finetune | 69.2 % |" in out
    assert "  floor     NOT PASSED  floor measured" in out
    assert "  gain      passed      gain measured" in out
    assert "rejected version 4" in out
    assert "why: too weak" in out
    (report,) = [line.split()[1] for line in out.splitlines() if line.startswith("report ")]
    assert {path.name for path in Path(report).iterdir()} >= {"report.html", "accuracies.png"}


def test_what_stands_in_one_tag_is_shown_as_what_has_its_own(name, review, logged, tmp_path):
    run = reviewed.evaluation_run("contrastive-reviewed", tmp_path / "evaluation")
    told = {"look": "3", "replicates": "5", "options_changed": "true", "evaluation_run": run}
    reviewed.put_up(name, logged, "4", details=json.dumps({**told, "test_accuracy_interval": "0.5 0.8"}))
    out = review("show", "4")
    assert "look        3\n" in out and "replicates  5\n" in out
    assert "note        the gate's options were changed after the test images were seen" in out
    assert "  floor     passed      floor measured" in out
    (found,) = [row for row in json.loads(review("list", "--json"))["versions"] if row["version"] == "4"]
    assert (found["look"], found["options_changed"], found["gain_low"]) == (3.0, True, 0.209)
    assert (found["accuracy_low"], found["accuracy_high"]) == (0.5, 0.8)


def test_a_weakened_gate_is_shown_and_takes_an_override_that_goes_on_record(name, review, client, logged):
    weaker = "min_gain = 0.0 instead of 0.02; skip_champions = [1] instead of []"
    reviewed.put_up(name, logged, "4", weaker=weaker, look="3", replicates="5", options_changed="true")
    assert next(line for line in review("list").splitlines() if line.startswith("4 ")).split()[2:4] == [
        "passed,",
        "weakened",
    ]
    out = review("show", "4")
    assert f"weakened    {weaker}\n" in out
    assert "look        3\n" in out and "replicates  5\n" in out
    assert "note        the gate's options were changed after the test images were seen" in out
    with pytest.raises(UserError, match=r"version 4: the gate asked less than by default .*--override") as caught:
        review("approve", "4", "--reason", "better")
    assert weaker in str(caught.value)
    assert "champion" not in aliases(client, name)
    assert "overridden" in review("approve", "4", "--reason", "the old one can't be loaded", "--override")
    assert aliases(client, name)["champion"] == "4"
    (decision,) = json.loads(review("history", "--json"))
    assert weaker in decision["override"]


def test_without_an_evaluation_show_says_that_the_checks_are_not_known(name, review, client):
    client.set_model_version_tag(name, "1", "evaluation_run", "0" * 32)
    client.update_model_version(name, "1", "")
    out = review("show", "1")
    assert "+24.4 points (95 % interval +20.9 to +27.7)" in out and "none yet" in out
    assert "not known, nor are the checks: blessing.json of run" in out
    assert "the version has no description" in out
    assert "not known, nor are the checks: the version has no tag evaluation_run" in review("show", "2")


def test_the_models_are_those_of_the_parameters(name, compose_params, in_tmp, capsys):
    make_root(in_tmp)
    with pytest.raises(UserError, match=r"params\.yaml: no such file"):
        main(["review", "list"])
    chosen = [f"registry.model_name={name}", "registry.production_model=prod"]
    write_params(composing.compose_params(chosen)[1], in_tmp / "params.yaml")
    main(["review", "list"])
    assert f"{name}, production model prod" in capsys.readouterr().out
    assert compose_params(f"registry.model_name={name}").registry.champion_model == name
    assert compose_params("registry.production_model=prod").registry.champion_model == "prod"
    with pytest.raises(UserError, match="production_model = m: is model_name too"):
        compose_params("registry.model_name=m", "registry.production_model=m")


def test_hints_name_the_command_that_approves(name):
    with pytest.raises(UserError, match=r"`contrastive review approve 3 --reason …`"):
        resolve(f"models:/{name}@champion")


def test_no_registry_is_made_and_none_that_is_away_is_waited_for(in_tmp, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///none.db")
    with pytest.raises(UserError, match=r"there is no registry at sqlite:.*none\.db"):
        main(["review", "list", "--model", "m"])
    assert list(in_tmp.iterdir()) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9.*start the server") as caught:
        main(["review", "approve", "1", "--reason", "x", "--model", "m"])
    assert "\n" not in str(caught.value)


def test_a_reviewer_needs_no_tensorflow(name):
    program = (
        "import sys\n"
        "from pipelines.__main__ import main\n"
        f"main(['review', 'list', '--model', {name!r}])\n"
        "print(*({'tensorflow', 'keras', 'sklearn', 'matplotlib'} & set(sys.modules)), 'end')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "challenger" in done.stdout
    assert done.stdout.splitlines()[-1] == "end"


# --- with a production model


def test_approving_copies_into_production_once_with_all_that_belongs_to_it(name, review, client):
    import mlflow

    production = name + "-production"
    both = ("--production-model", production)
    out = review("approve", "2", *both, "--reason", "first", "--reviewer", "anna")
    assert out.startswith("approved version 2 (production 1)\n")
    copy, source = client.get_model_version(production, "1"), client.get_model_version(name, "2")
    assert copy.description == source.description == reviewed.CARD
    assert copy.run_id == source.run_id
    kept = {key: value for key, value in source.tags.items() if not key.startswith("review.")}
    assert kept.items() <= copy.tags.items()
    assert copy.tags["review.by"] == source.tags["review.by"] == "anna"
    info = mlflow.models.get_model_info(f"models:/{production}@champion")
    assert info.metadata["class_names"] == reviewed.CLASSES
    assert aliases(client, production) == {"champion": "1"}
    assert aliases(client, name) == {"challenger": "3"}
    assert find_champion(production).version == "1"
    review("approve", "3", *both, "--reason", "better")
    review("rollback", *both, "--reason", "slow")
    review("approve", "3", *both, "--reason", "repaired")
    assert "champion already" in review("approve", "3", *both, "--reason", "again")
    assert aliases(client, production) == {"champion": "2", "previous-champion": "1"}
    assert len(client.search_model_versions(f"name = '{production}'")) == 2
    found = json.loads(review("list", *both, "--json"))
    assert (found["champion"], found["production_champion"], found["previous_champion"]) == ("3", "2", "2")
    assert [row["production_version"] for row in found["versions"]] == ["2", "1", None]
    assert "production" in review("list", *both)
    records = [key for key in client.get_registered_model(name).tags if key.startswith("review.log.")]
    assert records == []


def test_a_champion_of_the_pipelines_own_model_does_not_count_beside_production(name, review, client):
    production = name + "-production"
    both = ("--production-model", production)
    review("approve", "1", *both, "--reason", "first")
    client.set_registered_model_alias(name, "champion", "3")
    out = review("list", *both)
    assert f"{name} version 3 has the alias champion too; it does not count" in out
    assert statuses(lambda *arguments: review(*arguments, *both))["3"] == "challenger"
    assert statuses(lambda *arguments: review(*arguments, *both))["1"] == "champion"


def test_a_production_version_that_came_from_elsewhere_is_told(name, review, client, logged):
    production = name + "-production"
    both = ("--production-model", production)
    review("approve", "1", *both, "--reason", "first")
    elsewhere = reviewed.put_up(production, logged, "9")
    client.set_registered_model_alias(production, "champion", elsewhere)
    assert f"champion was moved from version 1 (production 1) to {production} version 2" in review("list", *both)
    review("approve", "2", *both, "--reason", "ours again")
    assert aliases(client, production)["previous-champion"] == elsewhere
    review("rollback", *both)
    assert aliases(client, production)["champion"] == elsewhere
