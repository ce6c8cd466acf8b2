"""What a script's result depends on: all the code that it really runs, and none of what has no meaning for it."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from safemed.utils import dependencies
from safemed.utils.dependencies import fingerprint, imported, sources
from support.paths import ROOT, SCRIPTS

LIBRARY = "scripts/safemed/"
NAMES = sorted(path.name for path in SCRIPTS.glob("*.py"))


@pytest.fixture
def scripts(tmp_path, monkeypatch) -> Path:
    """A copy of the scripts, to be edited, that fingerprints are taken of."""
    folder = shutil.copytree(SCRIPTS, tmp_path / "scripts")
    monkeypatch.setattr(dependencies, "SCRIPTS", folder)
    return folder


def append(path: Path, text: str) -> None:
    path.write_text(f"{path.read_text()}\n{text}\n")


def test_sources_are_the_script_and_what_it_imports():
    depends = {name: set(sources(name)) for name in NAMES}
    for name, found in depends.items():
        assert f"scripts/{name}" in found and all((ROOT / path).exists() for path in found)
    assert {LIBRARY + "training/rewards.py", LIBRARY + "training/at_grpo.py"} <= depends["train_grpo.py"]
    assert LIBRARY + "training/rewards.py" not in depends["train_sft.py"]
    assert LIBRARY + "models/vlm.py" not in depends["prepare.py"]


def test_trainings_do_not_depend_on_what_evaluations_alone_do():
    """Hints belong to GRPO alone, which may train against them."""
    for script in ("make_base.py", "train_sft.py", "train_tower.py", "train_grpo.py"):
        packages = {path.removeprefix(LIBRARY).split("/")[0] for path in sources(script)}
        assert not packages & {"evaluation", "certificates", "report", "workflow"}, script
        assert not {f"{LIBRARY}attacks/{name}.py" for name in ("apgd", "cw", "mi_fgsm")} & set(sources(script)), script
        assert LIBRARY + "data/hardening.py" not in sources(script), script
    assert LIBRARY + "stress/hints.py" not in sources("train_tower.py")


# Imports each script in a process of its own, forked from one with the packages that take seconds to import. Modules
# that only watch are stood in for by empty ones: what they alone would import is no source.
LOAD = """
import ast, importlib.util, json, os, runpy, sys, types
from pathlib import Path
import datasets, peft, torch, transformers, trl

class Watching:
    @staticmethod
    def find_spec(name, path=None, target=None):
        file = Path("scripts", *name.split(".")).with_suffix(".py")
        if name.startswith("safemed.") and file.exists() and "CHANGES_NO_RESULT = True" in file.read_text():
            return importlib.util.spec_from_loader(name, Watching)

    @staticmethod
    def create_module(spec):
        return types.ModuleType(spec.name)

    @staticmethod
    def exec_module(module):
        module.__getattr__ = Watching.anything

    @staticmethod
    def anything(name):
        if name.startswith("__"):
            raise AttributeError(name)
        return object

sys.meta_path.insert(0, Watching)
sys.path.insert(0, "scripts")
for script in sys.argv[1:]:
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0, script
        continue
    runpy.run_path(f"scripts/{script}", run_name="imported")
    ours = [module for name, module in sys.modules.items() if name.split(".")[0] == "safemed"]
    print(json.dumps([script, [module.__file__ for module in ours if hasattr(module, "__file__")]]))
    sys.stdout.flush()
    os._exit(0)
"""


def test_every_module_that_a_script_loads_is_among_its_sources():
    """What imports really load, against what is read off the syntax trees."""
    done = subprocess.run([sys.executable, "-c", LOAD, *NAMES], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = dict(map(json.loads, done.stdout.splitlines()))
    assert loaded.keys() == set(NAMES)
    for script, files in loaded.items():
        found = {str(Path(file).resolve().relative_to(ROOT)) for file in files}
        assert LIBRARY + "__init__.py" in found and found <= set(sources(script)), script


def test_modules_that_only_watch_are_no_sources():
    watching = {
        str(path.relative_to(ROOT))
        for path in SCRIPTS.rglob("*.py")
        if "\nCHANGES_NO_RESULT = True" in path.read_text()
    }
    assert LIBRARY + "training/monitoring.py" in watching
    assert not any(watching & set(sources(name)) for name in NAMES)


def test_an_unknown_script_or_module_is_refused():
    with pytest.raises(FileNotFoundError, match="no_such_script"):
        sources("no_such_script.py")
    with pytest.raises(FileNotFoundError, match="no_such_module"):
        fingerprint("certify.py", "safemed.no_such_module")


def test_a_relative_import_is_refused_since_it_would_not_be_followed(scripts):
    append(scripts / "safemed" / "utils" / "files.py", "from . import stats")
    with pytest.raises(ValueError, match=r"relative imports .* safemed\."):
        sources("prepare.py")


def test_comments_docstrings_and_formatting_have_no_meaning(scripts):
    before = fingerprint("certify.py")
    path = scripts / "safemed" / "utils" / "files.py"
    assert str(path.relative_to(scripts.parent)) in sources("certify.py")
    formatted = ast.unparse(ast.parse(path.read_text()))  # no comments, other line breaks and quotes
    assert formatted != path.read_text()
    path.write_text(formatted.replace('"""', '"""In other words: ', 1))
    assert fingerprint("certify.py") == before
    append(path, "# a remark")
    assert fingerprint("certify.py") == before


@pytest.mark.parametrize(
    "old, new",
    [("{a}", "{b}"), ("x + 1", "x + 2"), ('"one"', '"two"'), ("def f(x)", "def f(x=0)"), ("@cache", "@lru_cache")],
)
def test_whatever_else_changes_has(old, new, scripts):
    path = scripts / "safemed" / "utils" / "files.py"
    append(path, '@cache\ndef f(x):\n    """Docstring."""\n    y = {a}\n    return x + 1, "one", y')
    before = fingerprint("certify.py")
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    assert fingerprint("certify.py") != before


def test_a_string_that_is_no_docstring_has_a_meaning(scripts):
    path = scripts / "safemed" / "utils" / "files.py"
    append(path, 'def f():\n    """Docstring."""\n    "another string"')
    before = fingerprint("certify.py")
    path.write_text(path.read_text().replace("another string", "a third"))
    assert fingerprint("certify.py") != before


def test_packages_are_followed_through_every_form_of_import(scripts):
    """Of `from a import b`, b may be a module of the package a; the code of all packages above runs as well."""
    package = scripts / "safemed" / "extra" / "deep"
    package.mkdir(parents=True)
    for path in (package.parent / "__init__.py", package / "__init__.py", package / "one.py", package / "two.py"):
        path.write_text("VALUE = 1\n")
    (package / "three.py").write_text("VALUE = 1\n")
    (scripts / "new.py").write_text(
        "import safemed.extra.deep.one\nfrom safemed.extra.deep import two\n\n"
        "def late():\n    from safemed.extra.deep.three import VALUE\n"
    )
    found = {path.removeprefix(LIBRARY) for path in sources("new.py")}
    deep = {f"extra/deep/{name}.py" for name in ("__init__", "one", "two", "three")}
    assert found == {"scripts/new.py", "__init__.py", "extra/__init__.py"} | deep
    assert set(imported(scripts / "new.py")) >= {"safemed.extra.deep.one", "safemed.extra.deep.two"}
    for path in (package / "two.py", package.parent / "__init__.py"):
        before = fingerprint("new.py")
        path.write_text("VALUE = 2\n")
        assert fingerprint("new.py") != before


def test_modules_that_a_script_imports_by_name_are_added(scripts):
    (scripts / "safemed" / "extra.py").write_text("from safemed.utils import stats\n")
    alone, both = set(sources("certify.py")), set(sources("certify.py", "safemed.extra"))
    assert both - alone >= {LIBRARY + "extra.py"} and LIBRARY + "utils/stats.py" in both
    assert fingerprint("certify.py") != fingerprint("certify.py", "safemed.extra")
