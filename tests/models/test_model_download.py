"""A model of the hub is fetched once; after that, no stage needs a network."""

import json
import shutil

import pytest
from safetensors.torch import load_file
from transformers import AddedToken

from safemed.models.processor import load_processor
from support.commands import command
from support.hub import REVISION
from support.settings import SIDE

MODEL = "someone/Tiny"
BASE = {"model": {"name": MODEL, "revision": REVISION}, "image_size": SIDE, "variants": ["instruct", "think"]}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub's."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published(hub, tiny_model):
    """The tiny model on the hub."""
    files = sorted(path for path in tiny_model.iterdir() if path.is_file())
    tree = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0"} for path in files]
    hub.files[f"/api/models/{MODEL}/tree/{REVISION}"] = json.dumps(tree).encode()
    hub.files |= {f"/{MODEL}/resolve/{REVISION}/{path.name}": path.read_bytes() for path in files}
    return hub


def download(out, model: str = MODEL, fails: bool = False) -> str:
    """Run the command as the rule does."""
    return command("download_model.py", "--model", model, "--revision", REVISION, "--out", out, fails=fails)


def test_what_is_fetched_is_the_base_and_needs_no_network_again(
    published, cache, tiny_model, study_data, tmp_path, monkeypatch
):
    download(tmp_path / "model.json")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    download(tmp_path / "again.json")  # from the cache
    assert (tmp_path / "again.json").read_text() == (tmp_path / "model.json").read_text()
    folders = ["--data", study_data, "--checkpoint", tmp_path / "checkpoint", "--out", tmp_path / "base"]
    command("make_base.py", *folders, "--name", "base", "--fetched", tmp_path / "model.json", settings=BASE)
    fetched, start = (load_file(path / "model.safetensors") for path in (tmp_path / "base", tiny_model))
    assert fetched.keys() == start.keys() and all((fetched[name] == start[name]).all() for name in start)


def test_a_question_that_holds_a_token_of_the_checkpoints_own_is_named(tiny_model, study_data, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = load_processor(tiny_model).tokenizer
    tokenizer.add_tokens([AddedToken("imaging", special=True)])
    tokenizer.save_pretrained(tmp_path / "model")
    settings = BASE | {"model": {"name": str(tmp_path / "model"), "revision": None}}
    folders = ["--data", study_data, "--checkpoint", tmp_path / "checkpoint", "--out", tmp_path / "base"]
    said = command("make_base.py", *folders, "--name", "base", settings=settings, fails=True)
    assert "holds 'imaging', a token of the model's own" in said and "Traceback" not in said
    assert not (tmp_path / "base").exists()


def test_a_model_that_cannot_be_had_is_one_clear_error(hub, cache, tmp_path):
    said = download(tmp_path / "model.json", model="someone/Else", fails=True)
    assert "someone/Else" in said and "HF_HOME" in said and "local folder" in said and "Traceback" not in said
    assert not (tmp_path / "model.json").exists()


def test_a_cache_that_is_gone_is_one_clear_error(study_data, tmp_path):
    (tmp_path / "model.json").write_text(json.dumps({"path": str(tmp_path / "gone")}))
    folders = ["--data", study_data, "--checkpoint", tmp_path / "checkpoint", "--out", tmp_path / "base"]
    said = command(
        "make_base.py", *folders, "--name", "base", "--fetched", tmp_path / "model.json", settings=BASE, fails=True
    )
    assert f"{tmp_path / 'gone'}: no such folder" in said and "model.json" in said and "Traceback" not in said


def test_a_model_whose_weights_are_pickles_is_one_clear_error(published, cache, tmp_path):
    (tree,) = (name for name in published.files if name.startswith("/api"))
    published.files[tree] = published.files[tree].replace(b"model.safetensors", b"pytorch_model.bin")
    weights = published.files.pop(f"/{MODEL}/resolve/{REVISION}/model.safetensors")
    published.files[f"/{MODEL}/resolve/{REVISION}/pytorch_model.bin"] = weights
    said = download(tmp_path / "model.json", fails=True)
    assert "config: model.name: " in said and "no *.safetensors" in said and "Traceback" not in said
    assert not (tmp_path / "model.json").exists()
