"""What is wrong with where the data come from, and with how they are split."""

from collections.abc import Iterator
from pathlib import Path

from safemed.data.records import json_files, record_files
from safemed.workflow.sources import RECORDS, Sources, is_archive


def faults(config: dict) -> Iterator[str]:
    """Each fault of the section data, beginning with its whole key."""
    data, split = config["data"], config["data"]["split"]
    total = sum(split[name] for name in ("train", "val", "test"))
    if abs(total - 1) > 1e-9:
        yield f"data.split: train, val and test sum to {total:g}, not 1"
    if split["scheme"] == "med-r1":
        yield from _published(split["published"])
    yield from _source(data)


def _published(folder: str | None) -> Iterator[str]:
    wanted = "the scheme med-r1 needs the folder of Med-R1's train/*.json and test/*.json"
    if not folder:
        yield f"data.split.published: {wanted}"
    elif not all(json_files(Path(folder, kind)) for kind in ("train", "test")):
        yield f"data.split.published: {folder} does not hold them: {wanted}"


def _source(data: dict) -> Iterator[str]:
    """Whether the user's own folder or .zip is there; one that is unpacked is not needed any more."""
    source = data["source"]
    if source in (None, "hub"):
        return
    if is_archive(source):
        if not (Path(source).is_file() or Path(Sources({"data": data}, "").unpacked).is_dir()):
            yield f"data.source: there is no file {source}"
    elif Path(source).is_file():
        yield f"data.source: {source} is a file, and no .zip; give a folder or a .zip in OmniMedVQA's layout"
    elif not Path(source).is_dir():
        yield f"data.source: there is no folder {source}; null renders phantoms, hub downloads OmniMedVQA"
    elif not record_files(Path(source)):
        yield f"data.source: {source} holds no {RECORDS}; give the folder that holds Images/ and QA_information/"
