"""Where a study's images and questions come from: phantoms, a zip of the hub or a local one, or a user's folder."""

import hashlib
import json
from pathlib import Path

from safemed.data.records import json_files, record_files
from safemed.utils.files import walk

RECORDS = "QA_information/Open-access/*.json"  # in a folder of OmniMedVQA's layout
HARDENING = "safemed.data.hardening"  # what hardens questions; a study of published ones does not depend on it


def is_archive(source: str | None) -> bool:
    """Whether a source is a zip, by its name; a folder may have such a name, too."""
    return source is not None and Path(source).suffix.lower() == ".zip" and not Path(source).is_dir()


class Sources:
    """The paths of a study's source, and what tells that a user's files have changed.

    Guarantees: no file is written. Studies of one zip share one unpacked folder.
    """

    def __init__(self, config: dict, data: str):
        """config: the study's; data: its folder for prepared data."""
        self.config, self.hub, self.named = config["data"], config["data"]["hub"], config["data"]["source"]
        self.archive = self.named if is_archive(self.named) else f"resources/{self.hub['file']}"
        # Zips of one name, or revisions of the hub's, are unpacked side by side.
        which = hashlib.sha256(json.dumps(self.hub if self.named == "hub" else self.named).encode()).hexdigest()[:8]
        self.unpacked = f"resources/unpacked/{Path(self.archive).stem}-{which}"
        self.phantoms = f"{data}/source"
        made = {None: self.phantoms, "hub": self.unpacked, self.archive: self.unpacked}
        self.folder = made.get(self.named, self.named)

    @property
    def hardening(self) -> list[str]:
        """The module that hardens the questions, where the study asks hardened ones."""
        return [HARDENING] if self.config["questions"] == "hardened" else []

    def expected(self) -> dict:
        """The size and the hash that the zip must have: those in the config for the hub's, none for a local one."""
        return {key: self.hub[key] if self.named == "hub" else None for key in ("bytes", "sha256")}

    def records(self) -> list[str]:
        """The record files of a user's folder, sorted; none for a folder that a rule makes."""
        return [] if self._made() else list(map(str, record_files(Path(self.folder))))

    def published(self) -> list[str]:
        """The files of a published split, sorted, where the scheme reads them."""
        split = self.config["split"]
        if split["scheme"] != "med-r1":
            return []
        return [str(file) for kind in ("train", "test") for file in json_files(Path(split["published"], kind))]

    def stamp(self, wildcards=None) -> str:
        """32 hexadecimal digits that change with the name, size or time of any file in a user's folder; "" for others.

        An edit of a file does not change the time of the folder that it is in, which is all that Snakemake looks at.
        """
        if self._made():
            return ""
        found = hashlib.sha256()
        for folder, names in walk(Path(self.folder)):
            for name in names:
                found.update(json.dumps([folder, name, *_size_and_time(Path(folder, name))]).encode())
        return found.hexdigest()[:32]

    def _made(self) -> bool:
        """Whether a rule makes the folder."""
        return self.folder in (self.phantoms, self.unpacked)


def _size_and_time(path: Path) -> tuple[int, int]:
    """Of a file, or of a link that leads nowhere."""
    status = path.stat() if path.exists() else path.lstat()
    return status.st_size, status.st_mtime_ns
