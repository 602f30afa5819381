"""`streamflow new`: what is written, and what is refused before anything is."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamflow.broker import exit_codes
from streamflow.broker.errors import InvalidInput
from streamflow.cli.app import main
from streamflow.config.load import load_deployment, load_flow
from streamflow.templates import NAME, TEMPLATES, create


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_file_carries_the_name_and_nothing_is_left_out(template: str, tmp_path: Path) -> None:
    written = create(tmp_path / "my-search", template)

    assert {"README.md", "client.py", "requirements.txt", "executor.py", "config.yml", "pytest.ini"} <= {path.name for path in written}
    assert not any("__pycache__" in path.parts for path in written)
    assert not any(NAME in path.read_text() for path in written)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_flow_has_the_name_of_the_folder(template: str, tmp_path: Path) -> None:
    create(tmp_path / "my-search", template)
    file = tmp_path / "my-search" / ("deployment.yml" if template == "executor" else "flow.yml")
    definition = load_deployment(file) if template == "executor" else load_flow(file)

    assert definition.shared["name"] == "my-search"


def test_jinas_name_of_a_type_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["new", "hello", "--type=deployment"]) == 0
    assert (tmp_path / "hello" / "deployment.yml").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["there"], "there is there already"),
        (["new", "--template", "batsch"], "no such template 'batsch'; did you mean 'batch'?"),
        (["new", "--template", "kubernetes"], "there are flow, executor, batch"),
        (["a b"], "'a b' cannot be a flow's name"),
        (["..."], "'...' cannot be a flow's name"),
    ],
)
def test_a_wrong_wish_is_one_clear_sentence_and_writes_nothing(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()

    assert main(["new", *words]) == exit_codes.USAGE
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_folder_that_is_there_keeps_its_files(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "client.py").write_text("precious")

    with pytest.raises(InvalidInput, match="is there already"):
        create(tmp_path / "mine", "flow")
    assert [path.read_text() for path in (tmp_path / "mine").iterdir()] == ["precious"]
