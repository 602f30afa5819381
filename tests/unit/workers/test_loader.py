"""`uses` in all its forms, and what is said when it is wrong."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamflow.broker.errors import FlowError, RuntimeFailToStart
from streamflow.workers.endpoints import bind_endpoints
from streamflow.workers.executor import BaseExecutor, Executor, requests
from streamflow.workers.loader import load_executor

pytestmark = pytest.mark.feature("EX-26")

FIXTURES = Path(__file__).parents[2] / "fixtures" / "executors"


class Defaults(Executor):
    """T-06: constructor arguments."""

    def __init__(self, param1: int = 1, param2: int = 2, param3: int = 3, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params = (param1, param2, param3)

    @requests
    def all_req(self, parameters: dict[str, Any], **kwargs: Any) -> None: ...

    @requests(on="/foo")
    def foo(self, parameters: dict[str, Any], **kwargs: Any) -> None: ...

    def bar(self, parameters: dict[str, Any], **kwargs: Any) -> None: ...


@pytest.fixture(autouse=True)
def _clean_imports() -> Iterator[None]:
    """Every test imports its files anew."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.feature("EX-06")
@pytest.mark.parametrize("uses", [None, "", "  ", "BaseExecutor", {"jtype": "BaseExecutor"}])
def test_nothing_is_the_executor_that_does_nothing(uses: Any) -> None:
    assert type(load_executor(uses)) is BaseExecutor


def test_a_class_gets_its_arguments() -> None:
    executor = load_executor(
        Defaults,
        uses_with={"param1": 10, "param3": 30},
        uses_metas={"name": "different_name"},
        uses_requests={"/bar": "bar", "/non_foo": "foo", "/alias_foo": "foo"},
        uses_dynamic_batching={"/bar": {"preferred_batch_size": 10, "timeout": 200}},
        runtime_args={"name": "exec0/rep-1", "replica_id": 1},
        workspace="/tmp/w",
    )
    assert isinstance(executor, Defaults) and executor.params == (10, 2, 30)
    assert executor.metas.name == "different_name" and executor.runtime_args.name == "exec0/rep-1"
    assert executor.bound == {"/default": "all_req", "/bar": "bar", "/non_foo": "foo", "/alias_foo": "foo"}
    batching = bind_endpoints(executor)["/bar"].batching
    assert batching is not None and (batching.preferred_batch_size, batching.timeout_s) == (10, 0.2)


@pytest.mark.parametrize(
    "uses",
    [
        "Defaults",
        f"{__name__}.Defaults",
        "jtype: Defaults",
        "!Defaults",
        "!Defaults {}",
        "jtype: Defaults\nwith:\n  param1: 1\n",
        json.dumps({"jtype": "Defaults", "with": {"param2": 2}}),
        {"jtype": Defaults},
        {"jtype": "Defaults", "with": {"param1": 1}, "metas": {"name": "x"}},
        io.StringIO("jtype: Defaults\n"),
    ],
)
def test_a_class_of_this_process_is_found_by_name(uses: Any) -> None:
    executor = load_executor(uses)
    assert isinstance(executor, Defaults) and executor.params == (1, 2, 3)


@pytest.mark.parametrize("form", ["config.yml", "", "relative", "path"])
def test_a_file_or_its_folder_is_loaded(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FIXTURES)
    uses: Any = {
        "config.yml": str(FIXTURES / "single/config.yml"),
        "": str(FIXTURES / "single"),
        "relative": "single/config.yml",
        "path": FIXTURES / "single" / "config.yml",
    }[form]
    executor: Any = load_executor(uses)
    assert (type(executor).__name__, executor.greeting) == ("Greeter", "from config")
    assert (executor.metas.name, executor.metas.keywords) == ("greeter", ["hello", "world"])
    specs = bind_endpoints(executor)
    assert set(specs) == {"/default", "/shout"}
    batching = specs["/shout"].batching
    assert batching is not None and batching.preferred_batch_size == 10
    assert executor.runtime_args.py_modules == ["executor.py"]


def test_arguments_win_over_the_file_key_by_key() -> None:
    executor: Any = load_executor(str(FIXTURES / "single"), uses_with={"greeting": "mine"}, uses_metas={"name": "n"})
    assert (executor.greeting, executor.metas.name, executor.metas.description) == ("mine", "n", "Greets")


@pytest.mark.feature("EX-27")
def test_files_are_looked_for_in_the_search_paths_and_beside_the_yaml() -> None:
    executor: Any = load_executor("metas.yml", extra_search_paths=[FIXTURES / "nowhere", FIXTURES / "single"])
    assert (executor.metas.name, executor.greeting) == ("other", "executed MyExec")
    assert load_executor("config.yml", base_dir=FIXTURES / "single").metas.name == "greeter"


@pytest.mark.parametrize("modules", ["executor.py", ["helper.py", "executor.py"], ["executor"]])
def test_a_class_name_with_py_modules(modules: Any) -> None:
    executor: Any = load_executor("Greeter", py_modules=modules, base_dir=FIXTURES / "single")
    assert executor.greeting == "executed MyExec"
    assert sys.modules[type(executor).__module__] is not None


def test_a_dotted_name_is_imported_from_the_base_folder() -> None:
    assert type(load_executor("variants.postponed.Postponed", base_dir=FIXTURES)).__name__ == "Postponed"
    assert type(load_executor("postponed.Postponed", base_dir=FIXTURES / "variants")).__name__ == "Postponed"


@pytest.mark.feature("EX-24")
def test_a_package_with_relative_imports_and_a_namesake(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = tmp_path / "executor"
    other.mkdir()
    (other / "__init__.py").write_text("from .impl import Namesake as Namesake\n")
    (other / "impl.py").write_text("from streamflow.workers.executor import Executor\nclass Namesake(Executor):\n    pass\n")
    first = load_executor(str(FIXTURES / "package"))
    assert first.requests["/default"]() == {"suffix": ".png"}
    assert capsys.readouterr().out == "something\n"
    second = load_executor("Namesake", py_modules=["executor"], base_dir=tmp_path)
    assert type(second).__name__ == "Namesake"
    assert type(load_executor(str(FIXTURES / "package"))) is type(first)


def test_a_file_named_like_the_standard_library_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("from streamflow.workers.executor import Executor\nclass Hidden(Executor):\n    pass\n")
    (tmp_path / "my-exec.py").write_text("from streamflow.workers.executor import Executor\nclass Dashed(Executor):\n    pass\n")
    assert type(load_executor("Hidden", py_modules="json.py", base_dir=tmp_path)).__name__ == "Hidden"
    assert type(load_executor("Dashed", py_modules="my-exec.py", base_dir=tmp_path)).__name__ == "Dashed"
    assert sys.modules["json"] is json


def test_a_file_is_loaded_once_whatever_name_it_is_loaded_under(tmp_path: Path) -> None:
    executor = "from streamflow.workers.executor import Executor\nclass {}(Executor):\n    pass\n"
    package = tmp_path / "shelf"
    package.mkdir()
    (package / "__init__.py").write_text("from .inner import Inner as Inner\n")
    (package / "inner.py").write_text(executor.format("Inner"))
    (tmp_path / "first.py").write_text("from second import Second\n")
    (tmp_path / "second.py").write_text(executor.format("Second"))
    by_package = load_executor("Inner", py_modules="shelf/__init__.py", base_dir=tmp_path)
    assert type(load_executor("Inner", py_modules="shelf/inner.py", base_dir=tmp_path)) is type(by_package)
    by_import = load_executor("Second", py_modules="first.py", base_dir=tmp_path)
    assert type(load_executor("Second", py_modules="second.py", base_dir=tmp_path)) is type(by_import)


@pytest.mark.feature("YM-04")
def test_variables_in_an_executor_file_are_put_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "exec.yml"
    path.write_text("jtype: Defaults\nwith:\n  param1: ${{ ENV.SIZE }}\n  param2: ${{ CONTEXT.two }}\n  param3: ${{root.with.param1}}\n")
    monkeypatch.setenv("SIZE", "7")
    executor: Any = load_executor(str(path), context={"two": [2]})
    assert executor.params == (7, [2], 7)
    with pytest.raises(FlowError, match=rf"^{path}:4: with.param2: 'two' is not in the context$"):
        load_executor(str(path))
    monkeypatch.delenv("SIZE")
    with pytest.raises(FlowError, match=rf"^{path}:3: with.param1: environment variable 'SIZE' is not set$"):
        load_executor(str(path), context={"two": 2})


@pytest.mark.feature("EX-25")
def test_load_config_is_the_same_door(tmp_path: Path) -> None:
    executor: Any = Executor.load_config(str(FIXTURES / "single/config.yml"), uses_with={"greeting": "x"}, workspace=tmp_path)
    assert executor.greeting == "x" and Path(executor.workspace) == tmp_path / "greeter"


@pytest.mark.parametrize("place", ["workspace: {}", "metas:\n  workspace: {}", "with:\n  workspace: {}"])
def test_the_workspace_may_stand_in_the_file(place: str, tmp_path: Path) -> None:
    executor = load_executor("jtype: Defaults\n" + place.format(tmp_path))
    assert Path(executor.workspace).parent == tmp_path
    assert Path(load_executor(Defaults, workspace=tmp_path / "w").workspace).parent == tmp_path / "w"


@pytest.mark.parametrize(
    ("uses", "message"),
    [
        ("docker://image", "uses: docker://image: run the image as its own service"),
        ("jinahub://X", "the hub is gone"),
        ("jinahub+docker://X", "the hub is gone"),
        ("jinaai://u/X:tag", "the hub is gone"),
        ("jinaai+docker://u/X", "the hub is gone"),
        ("https://host/exec.yml", "code is not loaded from a URL"),
        ("ftp://x", "not a form of `uses`"),
        ("missing.yml", "uses: no file 'missing.yml' in /"),
        ("some/folder", "uses: no file 'some/folder' in /"),
        ("Defualts", "no executor class 'Defualts'; did you mean 'Defaults'"),
        ("jtype: Flow\nexecutors: []\n", "this file is a Flow, not an executor: use Flow.load_config, or `streamflow flow`"),
        ("!Deployment\nwith: {}\n", "1: this file is a Deployment, not an executor: use Deployment.load_config"),
        ("Xyzzyqwerty", "no executor class 'Xyzzyqwerty'; list its file under py_modules"),
        (5, "uses: 5 is no class, text or mapping"),
        (int, "class int does not derive from streamflow.Executor"),
        ("[1, 2]\n- 3", "inline YAML:"),
        ("- a\n- b", "inline YAML:1: an executor is a mapping with `jtype`, not list"),
        ("jtype: Defaults\nwtih:\n  a: 1", "inline YAML:2: wtih: unknown key; did you mean 'with'"),
        ("jtype: Defaults\nwith: 5", "inline YAML:2: with: must be a mapping, not int"),
        ("jtype: [a]\n", "inline YAML:1: jtype: must be a class name"),
        ("jtype: Defaults\npy_modules: [1]", "inline YAML:2: py_modules: must be a list of file or module names"),
        ("jtype: Defaults\npy_modules:\n- gone.py", "inline YAML:2: py_modules: no file 'gone.py' in /"),
        ("jtype: Defaults\n\nwith: {metas: {}}", "inline YAML:3: with: 'metas' is set by the worker"),
        ("jtype: !!python/name:os.system", "inline YAML:1: tag .* is not allowed"),
        ("jtype: Defaults\nrequests: {/x: nothing}", "uses_requests: '/x': Defaults has no method 'nothing'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(uses: Any, message: str) -> None:
    with pytest.raises(FlowError, match=message):
        load_executor(uses)


def test_errors_of_a_file_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "exec.yml"
    path.write_text("metas:\n  name: x\njtype: Missing\npy_modules: [here.py]\n")
    (tmp_path / "here.py").write_text("class Missink: pass\n")
    with pytest.raises(FlowError, match=rf"^{path}:3: jtype: no executor class 'Missing' in here; did you mean 'Missink'\?$"):
        load_executor(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FlowError, match=rf"^{path}: cannot be read"):
        load_executor(str(path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FlowError, match="no config.yml in"):
        load_executor(str(tmp_path / "empty"))


def test_a_class_that_is_no_executor_is_named() -> None:
    with pytest.raises(FlowError, match="class NotAnExecutor does not derive from streamflow.Executor"):
        load_executor("NotAnExecutor", py_modules="executor.py", base_dir=FIXTURES / "single")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("RaisesAtStart", RuntimeFailToStart, "executor RaisesAtStart did not start: ValueError: no model at /tmp/x"),
        ("ForgetsSuper", FlowError, r"ForgetsSuper.__init__ must call super\(\)"),
        ("UsesBeforeSuper", RuntimeFailToStart, r"UsesBeforeSuper did not start: AttributeError: .*must call super\(\).*first"),
        ("ForgetsKwargs", FlowError, r"ForgetsKwargs.__init__ must take \*\*kwargs and call super"),
        ("NeedsModel", FlowError, "with: NeedsModel.__init__: missing a required argument: 'model'"),
    ],
)
def test_constructors_that_fail_are_named(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        load_executor(name, py_modules="executors.py", base_dir=FIXTURES / "broken")
    if error is RuntimeFailToStart:
        assert raised.value.__cause__ is not None


@pytest.mark.parametrize("uses", ["X", "raises.X"])
def test_modules_that_fail_are_named(uses: str) -> None:
    said = r"raises.* cannot be imported: /.*raises.py:1: ModuleNotFoundError: No module named 'streamflow_no_such"
    with pytest.raises(RuntimeFailToStart, match=said):
        load_executor(uses, py_modules=() if "." in uses else "raises.py", base_dir=FIXTURES / "broken")
    assert "raises" not in sys.modules


def test_a_module_that_does_not_exist_is_named_without_python_s_own_files() -> None:
    with pytest.raises(RuntimeFailToStart, match="^streamflow_no_such cannot be imported: ModuleNotFoundError: No module named"):
        load_executor("streamflow_no_such.X", base_dir=FIXTURES / "broken")
