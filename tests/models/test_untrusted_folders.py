"""A model folder from a stranger runs no code and leads nowhere but into itself, or to the blobs of the hub's cache."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from safemed.models.model_type import lacking
from safemed.models.processor import load_processor
from safemed.models.vlm import VLM, load_weights
from safemed.workflow import checks, config_files
from support.malice import set_trap


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    """A model folder to be changed."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def in_the_hubs_cache(folder: Path, repository: Path) -> Path:
    """The files of a model folder as the hub's client stores them."""
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(repository / "blobs" / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    return snapshot


def config_faults(name: Path) -> list[str]:
    """What the config's checks say of a study of a local model."""
    config = config_files.read()
    config["model"] |= {"name": str(name), "revision": None}
    return [fault for fault in checks.faults(config) if "model.name" in fault]


def refused(folder: Path, match: str) -> None:
    """Neither the config's checks, which first tell what is missing, nor the loading accept a folder, in one line."""
    with pytest.raises(ValueError, match=match) as error:
        load_weights(folder)
    assert "\n" not in str(error.value)
    missing = lacking(folder)
    assert config_faults(folder) == [f"config: model.name: {f'{folder} {missing}' if missing else error.value}"]


def test_links_inside_the_folder_and_into_the_hubs_cache_are_followed(folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    (folder / "model.safetensors").symlink_to("weights.safetensors")
    (tmp_path / "named").symlink_to(folder)
    before = load_file(folder / "weights.safetensors")
    assert not config_faults(tmp_path / "named") and VLM.load(tmp_path / "named")
    (folder / "model.safetensors").unlink()
    (folder / "weights.safetensors").rename(folder / "model.safetensors")
    snapshot = in_the_hubs_cache(folder, tmp_path / "hub" / "models--someone--Tiny")
    assert not config_faults(snapshot)
    after = load_weights(snapshot).state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "notes/more.txt"])
def test_a_link_that_leads_out_is_refused_by_its_name(folder, tmp_path, name):
    other = tmp_path / "others" / "file"
    other.parent.mkdir()
    (folder / name).parent.mkdir(exist_ok=True)
    shutil.move(folder / name, other) if (folder / name).exists() else other.write_text("secret")
    (folder / name).symlink_to(other)
    refused(folder, rf"model/{name} leads out of its model's folder, to {other}; copy")


def test_a_folder_linked_to_and_the_blobs_of_another_model_lead_out(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "sub").symlink_to(tmp_path / "elsewhere")
    refused(folder, "model/sub leads out")
    (folder / "sub").unlink()
    snapshot = in_the_hubs_cache(folder, tmp_path / "hub" / "models--someone--Tiny")
    (tmp_path / "hub" / "models--other" / "blobs").mkdir(parents=True)
    blob = tmp_path / "hub" / "models--other" / "blobs" / "0"
    shutil.copy(snapshot / "model.safetensors", blob)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to("../../../models--other/blobs/0")
    refused(snapshot, "model.safetensors leads out")


def test_an_index_that_names_weights_outside_is_refused(folder, tmp_path):
    shutil.copy(folder / "model.safetensors", tmp_path / "outside.safetensors")
    weights = dict.fromkeys(load_file(folder / "model.safetensors"), "../outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))
    refused(folder, "outside.safetensors leads out")


def test_what_is_no_file_is_refused_and_not_waited_for(folder):
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    refused(folder, "model.safetensors is no file")


def test_pickled_weights_are_refused_and_run_no_code(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    set_trap(folder / "pytorch_model.bin", tmp_path / "sprung")
    refused(folder, "no \\*.safetensors")
    assert not (tmp_path / "sprung").exists()


def test_pickles_beside_the_weights_are_not_read(folder, tmp_path):
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        set_trap(folder / name, tmp_path / "sprung")
    VLM.load(folder)
    assert not (tmp_path / "sprung").exists()


def test_an_adapter_is_not_put_on_the_model_that_it_names(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else", "peft_type": "LORA"}')
    refused(folder, "an adapter")


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path):
    code = f"import os\nos.mkdir({str(tmp_path / 'sprung')!r})\nclass Own: pass\n"
    (folder / "own.py").write_text(code)
    mapped = {"AutoConfig": "own.Own", "AutoTokenizer": ["own.Own", None], "AutoModelForImageTextToText": "own.Own"}
    for name in ("config.json", "tokenizer_config.json"):
        known = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(known | {"auto_map": mapped}))
    load_weights(folder)
    load_processor(folder)
    assert not (tmp_path / "sprung").exists()
