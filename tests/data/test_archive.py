"""The archive is fetched whole, also after a kill, and unpacked safely; every failure is one clear error."""

import hashlib
import os
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from support.commands import command
from support.hub import REVISION

REPO, FILE = "someone/Some", "Some.zip"
URL = f"/datasets/{REPO}/resolve/{REVISION}/{FILE}"
CONTENT = os.urandom(300_000)


@pytest.fixture
def asked(hub) -> list:
    """A hub with the file; gives the ranges that it is asked for."""
    hub.files[URL] = CONTENT
    return hub.ranges


def download(out: Path, file: str = FILE, fails: bool = False) -> str:
    """Run the command as the rule does."""
    arguments = ["--repo", REPO, "--revision", REVISION, "--file", file, "--out", out]
    return command("download.py", *arguments, fails=fails)


def test_the_file_is_the_hubs(asked, tmp_path):
    download(tmp_path / "resources" / FILE)
    assert (tmp_path / "resources" / FILE).read_bytes() == CONTENT
    assert asked[-1] is None and len(list((tmp_path / "resources").iterdir())) == 1


def test_a_broken_off_download_asks_for_the_rest_alone(asked, tmp_path):
    (tmp_path / f".{FILE}.{REVISION}.partial").write_bytes(CONTENT[:200_000])
    download(tmp_path / FILE)
    assert (tmp_path / FILE).read_bytes() == CONTENT and asked[-1] == "bytes=200000-"


def test_a_file_that_is_gone_is_one_clear_error(asked, tmp_path):
    said = download(tmp_path / FILE, file="Other.zip", fails=True)
    assert "Other.zip" in said and "404" in said and f"put it at {tmp_path / FILE}" in said and "Traceback" not in said
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("setting", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_no_network_is_one_clear_error(setting, tmp_path, monkeypatch):
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    said = download(tmp_path / FILE, fails=True)
    assert URL in said and "by hand" in said and "data.source" in said and "Traceback" not in said
    assert not (tmp_path / FILE).exists()


NAMES = ["QA_information/Open-access/a.json", "Images/a b/52%0 (1) & #..JPG", "Images/x/a..b.png", "Images/x/c.png"]


def make_zip(path: Path, names: list[str], root: str = "OmniMedVQA/", size: int = 5000) -> Path:
    """A zip of files whose content follows from their names."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name in names:
            made.writestr(root + name, content(name, size))
    return path


def content(name: str, size: int = 5000) -> bytes:
    """Bytes that do not compress."""
    return b"".join(hashlib.sha256(f"{name}{i}".encode()).digest() for i in range(size // 32 + 1))


def unpack(archive: Path, out: Path, fails: bool = False, **settings) -> str:
    """Run the command as the rule does."""
    return command("unpack.py", "--archive", archive, "--out", out, settings=settings, fails=fails)


def tree(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("root", ["OmniMedVQA/", "a/b/"])
def test_the_folder_holds_images_and_records_under_their_own_names(tmp_path, root):
    archive = make_zip(tmp_path / "a.zip", NAMES, root)
    with zipfile.ZipFile(archive, "a") as more:
        more.writestr("__MACOSX/OmniMedVQA/QA_information/Open-access/._a.json", b"x")
    unpack(archive, tmp_path / "out", bytes=archive.stat().st_size)
    assert tree(tmp_path / "out") == {name: content(name) for name in NAMES}


def test_size_and_hash_are_checked_before_anything_is_written(tmp_path):
    archive = make_zip(tmp_path / "a.zip", NAMES)
    said = unpack(archive, tmp_path / "out", fails=True, bytes=1)
    assert f"{archive.stat().st_size} bytes instead of 1" in said and "fetch it again" in said
    said = unpack(archive, tmp_path / "out", fails=True, sha256="0" * 64)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()
    unpack(archive, tmp_path / "out", sha256=hashlib.sha256(archive.read_bytes()).hexdigest())


@pytest.mark.parametrize("name", ["../evil.png", "Images/../../evil.png", "/tmp/evil.png", "link"])
def test_members_that_lead_out_are_refused(tmp_path, name):
    archive = make_zip(tmp_path / "a.zip", NAMES, root="")
    with zipfile.ZipFile(archive, "a") as made:
        member = zipfile.ZipInfo("Images/link" if name == "link" else name)
        member.external_attr = (stat.S_IFLNK | 0o777) << 16 if name == "link" else 0
        made.writestr(member, "/etc")
    said = unpack(archive, tmp_path / "deep" / "out", fails=True)
    assert "leads out" in said and "Traceback" not in said
    assert not list(tmp_path.rglob("evil*")) and not (tmp_path / "deep" / "out").exists()


def test_backslashes_are_named_as_what_they_are(tmp_path):
    archive = make_zip(tmp_path / "a.zip", NAMES, root="")
    with zipfile.ZipFile(archive, "a") as made:
        made.writestr("Images\\..\\evil.png", "x")
    said = unpack(archive, tmp_path / "out", fails=True)
    assert "named with backslashes" in said and "zip it anew" in said and "Traceback" not in said
    assert not list(tmp_path.rglob("evil*"))


def test_a_zip_with_two_files_of_one_name_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        archive = make_zip(tmp_path / "a.zip", [*NAMES, NAMES[1]])
    said = unpack(archive, tmp_path / "out", fails=True)
    assert f"{NAMES[1]} is in it twice" in said and "Traceback" not in said


def test_the_longest_names_are_unpacked(tmp_path):
    names = [*NAMES, f"Images/{'x' * 251}.png", f"Images/{'ä' * 125}.png"]
    unpack(make_zip(tmp_path / "a.zip", names), tmp_path / "out")
    assert tree(tmp_path / "out") == {name: content(name) for name in names}


def test_broken_zips_are_refused(tmp_path):
    archive = make_zip(tmp_path / "a.zip", NAMES)
    whole = bytearray(archive.read_bytes())
    for name, broken in {"cut": whole[:9000], "empty": b"", "text": b"no zip" * 100}.items():
        (tmp_path / f"{name}.zip").write_bytes(broken)
        said = unpack(tmp_path / f"{name}.zip", tmp_path / "out", fails=True)
        assert f"{name}.zip" in said and "fetch it again" in said and "Traceback" not in said
    for place in (7000, 7003):
        whole[place] ^= 0xFF  # inside the second member
    (tmp_path / "flipped.zip").write_bytes(whole)
    said = unpack(tmp_path / "flipped.zip", tmp_path / "out", fails=True)
    assert NAMES[1] in said and "broken" in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_zip_in_another_layout_is_refused(tmp_path):
    said = unpack(make_zip(tmp_path / "a.zip", ["Images/x/a.png"]), tmp_path / "out", fails=True)
    assert "QA_information" in said and "Traceback" not in said


def test_a_zip_whose_file_is_also_a_folder_is_refused(tmp_path):
    made = make_zip(tmp_path / "some.zip", ["Images/x", "Images/x/y.png", "QA_information/Open-access/a.json"])
    said = unpack(made, tmp_path / "out", fails=True)
    assert "Images/x" in said and "a file and a folder" in said and "Traceback" not in said


def test_a_partial_file_longer_than_the_hubs_is_thrown_away(asked, tmp_path):
    (tmp_path / f".{FILE}.{REVISION}.partial").write_bytes(CONTENT + b"more")
    download(tmp_path / FILE)
    assert (tmp_path / FILE).read_bytes() == CONTENT and asked[-1] in (None, "bytes=0-")


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    archive = make_zip(tmp_path / "a.zip", NAMES)
    unpack(archive, tmp_path / "whole")
    done = tmp_path / ".out.partial" / NAMES[2]
    done.parent.mkdir(parents=True)
    done.write_bytes(content(NAMES[2]))
    os.utime(done, ns=(1, 1))
    (done.parent / "c.png").write_bytes(b"cut")
    other = tmp_path / ".out.partial" / NAMES[1]  # of another archive
    other.parent.mkdir(parents=True)
    other.write_bytes(bytes(len(content(NAMES[1]))))
    stranger = tmp_path / ".out.partial" / "QA_information" / "Open-access" / "old.json"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("[]")
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert (tmp_path / "out" / NAMES[2]).stat().st_mtime_ns == 1


def test_a_full_disk_is_a_clear_error_and_the_next_run_finishes(tmp_path):
    archive = make_zip(tmp_path / "a.zip", NAMES, size=300_000)
    (tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", tmp_path / "disk"]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system needs the right to mount one")
    try:
        said = unpack(archive, tmp_path / "disk" / "out", fails=True)
        assert "disk is full" in said and "Make room" in said and "Traceback" not in said
        subprocess.run(["mount", "-o", "remount,size=8m", tmp_path / "disk"], check=True)
        unpack(archive, tmp_path / "disk" / "out")
        assert tree(tmp_path / "disk" / "out") == {name: content(name, 300_000) for name in NAMES}
    finally:
        subprocess.run(["umount", tmp_path / "disk"], check=True)
