"""Files that changed without Snakemake: a user's images and records, and results that were renamed or copied."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from support.paths import SMALLEST_STUDY
from support.snakemake_runs import checkout, plan, snakemake


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory) -> tuple[Path, Path]:
    """A checkout whose study has prepared the questions of a user's folder, and that folder."""
    folder = checkout(tmp_path_factory.mktemp("leftovers") / "repository")
    mine = Path(shutil.copytree(source, folder / "mine"))
    (folder / "mine.yaml").write_text(f"study: mine\ndata: {{source: {mine}}}\n")
    done = snakemake("data", "--cores", 2, *config(), cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, mine


def config(*more: Path) -> list:
    return ["--configfile", SMALLEST_STUDY, "mine.yaml", *more]


def test_an_edited_image_and_a_new_record_file_in_a_users_folder_are_read(prepared):
    folder, mine = prepared
    assert not plan("data", *config(), cwd=folder)
    image = next(mine.rglob("*.png"))
    before = image.read_bytes()
    Image.new("RGB", (40, 40)).save(image)
    assert plan("data", *config(), cwd=folder)["prepare"] == 1
    image.write_bytes(before)
    record = next(mine.glob("QA_information/Open-access/*.json"))
    copy = shutil.copy(record, record.with_name("another.json"))
    assert plan("data", *config(), cwd=folder)["prepare"] == 1
    Path(copy).unlink()


def test_results_without_a_record_of_how_they_were_made_are_refused_and_can_be_kept(prepared):
    folder, _ = prepared
    shutil.copytree(folder / "results" / "mine", folder / "results" / "renamed")
    (folder / "renamed.yaml").write_text("study: renamed\n")
    renamed = config("renamed.yaml")
    refused = snakemake("data", "--cores", 2, *renamed, cwd=folder)
    assert refused.returncode and "There is no record here" in refused.stderr, refused.stderr[-2000:]
    keep = re.search(r"'(--touch --force [^']+)'", refused.stderr)[1].split()
    assert "results/renamed/data/questions" in keep
    kept = snakemake("--cores", 2, *keep, *renamed, cwd=folder)
    assert kept.returncode == 0, kept.stderr[-2000:]
    done = snakemake("data", "--cores", 2, *renamed, cwd=folder)
    assert done.returncode == 0 and "Nothing to be done" in done.stderr + done.stdout, done.stderr[-2000:]
