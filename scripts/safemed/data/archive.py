"""The published zip: fetched at a pinned revision, checked, unpacked safely; a killed run goes on where it was."""

import errno
import hashlib
import logging
import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import httpx2
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers
from tqdm import tqdm

from safemed.utils import cli, files

RECORDS = "QA_information"  # the folder in which it stands is the root of the unpacked one
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)  # what a member may raise
UNREACHED = (httpx2.HTTPError, OfflineModeIsEnabled, ConnectionError)
CHUNK = 2**22
LOG_MEMBERS = 5000
GIB = 2**30


class BadArchive(ValueError):
    """An archive that cannot be had, or is not what it should be; the message names it and the way out."""


def download(repo: str, revision: str, file: str, out: Path) -> None:
    """Fetch a dataset's file from the Hugging Face hub to `out`, whole or not at all.

    A download that was killed is gone on with. Raises BadArchive where the hub cannot be reached or refuses: it says
    what to fetch by hand and where to put it. Raises OSError where the disk has no room.
    """
    url = hf_hub_url(repo, file, repo_type="dataset", revision=revision)
    partial = out.with_name(f".{out.name}.{revision}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        _fetch(url, partial)
    except UNREACHED as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadArchive(
            f"{url}: {why}\nFetch it by hand, put it at {out} and run again; or point "
            "data.source at the zip or at the unpacked folder."
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise BadArchive(f"{url}: {error}; run again to fetch what is missing") from error
    os.replace(partial, out)


def _fetch(url: str, partial: Path) -> None:
    """Append what is missing. (The hub's own download starts anew after a kill: its partial file has a random name.)"""
    size = get_hf_file_metadata(url).size
    held = partial.stat().st_size if partial.exists() else 0
    if size and held > size:  # not a part of this file
        partial.unlink()
        held = 0
    _check_room(size or 0, partial.parent, held)
    logging.info("%s: %.1f of %.1f GiB are there", url, held / GIB, (size or 0) / GIB)
    with partial.open("ab") as stream:
        http_get(url, stream, resume_size=held, headers=build_hf_headers(), expected_size=size)


def verify(path: Path, size: int | None, sha256: str | None) -> None:
    """Raise BadArchive where the file's size or hash is not the expected one; None is not checked."""
    again = "delete it and fetch it again"
    if size is not None and path.stat().st_size != size:
        raise BadArchive(f"{path}: {path.stat().st_size} bytes instead of {size}; {again}")
    if sha256 is not None:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != sha256:
            raise BadArchive(f"{path}: its sha256 is {found} instead of {sha256}; {again}")


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a zip in OmniMedVQA's layout to a folder with Images/ and QA_information/; gives the number of files.

    What stands beside the folder of QA_information is left out. What a killed run wrote, by size and CRC, is kept.
    Raises BadArchive for a zip that is broken, is in another layout, or holds a path that leads out of the folder, and
    OSError where the disk has no room; nothing is written outside, and `folder` is whole or absent.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(archive, opened)
            with files.atomic_folder(folder, resume=True) as partial:
                _check_room(sum(member.file_size for member, _ in members), partial, _held(partial))
                for number, (member, path) in enumerate(tqdm(members, desc="unpack", disable=not cli.watched()), 1):
                    _write(archive, opened, member, partial / path)
                    if number % LOG_MEMBERS == 0:
                        logging.info("%d of %d files", number, len(members))
                _drop_others(partial, {path for _, path in members})
    except zipfile.BadZipFile as error:
        raise BadArchive(f"{archive}: {error}; fetch it again") from error
    return len(members)


def _members(archive: Path, opened: zipfile.ZipFile) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The files to write and their paths below the folder that holds QA_information."""
    files = [m for m in opened.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
    for member in files:
        if "\\" in member.orig_filename:
            raise BadArchive(
                f"{archive}: the member {member.orig_filename!r} is named with backslashes, as some "
                "programs on Windows do; unpack it there and zip it anew, or point data.source at the unpacked folder"
            )
        if not _is_safe(member):
            raise BadArchive(f"{archive}: the member {member.filename!r} leads out of the folder; it is not unpacked")
    paths = [PurePosixPath(member.filename) for member in files]
    roots = {PurePosixPath(*path.parts[: path.parts.index(RECORDS)]) for path in paths if RECORDS in path.parts[:-1]}
    if len(roots) != 1:
        raise BadArchive(f"{archive}: {len(roots)} folders named {RECORDS} instead of one; is it OmniMedVQA's zip?")
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise BadArchive(f"{archive}: {twice} is in it twice; zip it anew")
    if clash := set(paths) & {parent for path in paths for parent in path.parents}:
        raise BadArchive(f"{archive}: {min(clash)} is a file and a folder; fetch it again")
    root = roots.pop()
    below = zip(files, paths, strict=True)
    return [(member, path.relative_to(root)) for member, path in below if path.is_relative_to(root)]


def _is_safe(member: zipfile.ZipInfo) -> bool:
    """Whether the member is a plain file below the folder it is unpacked to."""
    name = member.orig_filename
    path = PurePosixPath(name)
    odd = path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":"))
    return not odd and not stat.S_ISLNK(member.external_attr >> 16)


def _write(archive: Path, opened: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Write one member, unless it is there in full; its name appears when it is whole."""
    if _holds(path, member):
        return
    try:
        with files.atomic_file(path) as partial, opened.open(member) as source, partial.open("wb") as target:
            shutil.copyfileobj(source, target, CHUNK)
    except BROKEN as error:
        raise BadArchive(f"{archive}: the member {member.filename!r} is broken ({error}); fetch it again") from error


def _drop_others(folder: Path, paths: set[PurePosixPath]) -> None:
    """Remove the files that are no members: a killed run may have unpacked another archive into the same folder."""
    for path in folder.rglob("*"):
        if path.is_file() and PurePosixPath(path.relative_to(folder)) not in paths:
            path.unlink()


def _holds(path: Path, member: zipfile.ZipInfo) -> bool:
    """Whether the file is there with the member's content: an earlier run may have unpacked another archive."""
    if not path.is_file() or path.stat().st_size != member.file_size:
        return False
    found = 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            found = zlib.crc32(chunk, found)
    return found == member.CRC


def _held(folder: Path) -> int:
    """Bytes that the files below a folder hold."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _check_room(needed: int, folder: Path, held: int = 0) -> None:
    free = shutil.disk_usage(folder).free
    if needed - held > free:
        raise OSError(errno.ENOSPC, f"{(needed - held) / GIB:.1f} GiB are needed and {free / GIB:.1f} GiB free")
