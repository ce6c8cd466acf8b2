"""Train, val and test such that no picture, and no patient that a file name tells, is in two of them.

Near-duplicates are as much a leak as copies: neighbouring slices, the same photograph in two formats or datasets. They
are grouped by their difference hash, patients and slides by patterns for the datasets whose file names tell them.
"""

import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from safemed.data.dataset import SPLITS, UNUSED
from safemed.data.records import BadRecord, json_files, parse_med_r1, read_list, without_answer

# What a file name tells of whom or what the image shows; pictures that share all that is in brackets belong together.
SUBJECTS = {
    "Kermany X-ray patient": r"/(person\d+)_(?:bacteria|virus)_\d+\.",
    "Kermany X-ray normal": r"/(?:NORMAL2-)?(IM-\d{4})-\d{4}",
    "Kermany OCT patient": r"/(?:CNV|DME|DRUSEN|NORMAL)-(\d+)-\d+\.",
    "MURA patient": r"/(patient\d+)/study",
    "ChestX-ray14 patient": r"/(\d{8})_\d{3}\.png$",
    "EyePACS patient": r"/(\d+)_(?:left|right)\.",
    "DeepDRiD patient": r"regular-fundus[^/]*/(\d+)/\d+_[lr]\d",
    "OLIVES patient": r"_Prime_FULL_(\d\d-\d{3})_W",
    "TREX patient": r"_GILA_(\d+)",
    "OAI patient": r"/(\d{7})[LR]\.png$",
    "PAD-UFES patient": r"/(PAT_\d+)_",
    "malaria patient": r"/(C\d+P\d+)Thin",
    "BreakHis slide": r"/SOB_[BM]_[A-Z]+-(\d+-\w+)-\d+-\d+",
    "lymphoma slide": r"/(sj-\d\d-\d+-R\d)_",
    "ISIC photograph": r"/(ISIC_\d{7})\.",
    "Covid CT preprint": r"Covid CT/[^/]+/(\d{4}\.\d\d\.\d\d\.\d+)-p",
    "Covid CT figure": r"Covid CT/[^/]+/(.+)%\d+\.",
    "chest CT study": r"Chest CT Scan/\w+/([a-z.]+)[^/]*/(\d{6})\b",
    "sperm": r"MHSMA/\w+/(\w+)\.\w+$",
    "blood smear": r"Blood Cell/[^/]+/(\w+/_\d+)_\d+\.jpe?g$",
}
SUBJECT = {name: re.compile(pattern) for name, pattern in SUBJECTS.items()}
CHUNK = 128  # hashes compared at once with all others
MEDVLM_TRAIN, MEDVLM_TEST = "MR", ("MR", "CT", "X-ray")


def keys(questions: Dataset) -> pd.DataFrame:
    """What splits are made of: question_id, modality, question_type, question, image_path, image_key and dhash."""
    wanted = ["question_id", "modality", "question_type", "question", "image_path", "image_key", "dhash"]
    return questions.select_columns(wanted).to_pandas()


def split(questions: pd.DataFrame, settings: dict, seed: int) -> pd.DataFrame:
    """Columns question_id, image_key, group, split (one of SPLITS or UNUSED), a row a question of `keys`.

    settings: data.split of the config. The scheme `grouped` deals out groups, so that none is in two splits;
    `medvlm-r1` takes MedVLM-R1's sizes out of it (600 MRI questions to train on; MRI, CT and X-ray to test); `med-r1`
    takes the published files as they are, with their leaks.
    """
    shares = {name: settings[name] for name in SPLITS}
    made = questions[["question_id", "image_key"]].copy()
    made["group"] = groups(questions, settings["near_duplicate_bits"])
    table = questions.assign(group=made["group"])
    if settings["scheme"] == "med-r1":
        made["split"] = published_splits(table, Path(settings["published"]), shares, seed)
        return made
    made["split"] = assign_splits(table, shares, seed)
    if settings["scheme"] == "medvlm-r1":
        made["split"] = medvlm_r1(
            table.assign(split=made["split"]), settings["train_questions"], settings["test_questions"], seed
        )
    return made


def groups(questions: pd.DataFrame, bits: int) -> pd.Series:
    """A label for each question, equal for all whose images belong together: the first image_path among them.

    Together are images of the same pixels, of one subject (SUBJECTS), and of the same modality whose difference hashes
    differ in at most `bits` of 256, and what these join in turn.
    """
    images = questions.drop_duplicates("image_path").reset_index(drop=True)
    edges = [_same(images["image_key"]), _same(images["image_path"].map(subject))]
    for _, part in images.groupby("modality"):
        edges += [_same(part["dhash"]), _near(part.drop_duplicates("dhash"), bits)]
    first, second = np.concatenate(edges).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(images),) * 2)
    _, labels = connected_components(graph, directed=False)
    first_path = images.groupby(labels)["image_path"].transform("min")
    return questions["image_path"].map(dict(zip(images["image_path"], first_path, strict=True)))


def subject(path: str) -> str | None:
    """Whom or what the file name tells to be shown, such as "MURA patient patient11601"; None where it does not."""
    for name, pattern in SUBJECT.items():
        if found := pattern.search(path):
            return f"{name} {' '.join(found.groups())}"
    return None


def hash_array(dhashes: pd.Series) -> np.ndarray:
    """Difference hashes as uint64 [n, 4]."""
    return np.frombuffer(bytes.fromhex("".join(dhashes)), dtype=">u8").reshape(len(dhashes), -1).astype(np.uint64)


def distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Bits in which hashes differ: uint16 [n, m] of uint64 [n, 4] and [m, 4]."""
    words = zip(some.T, others.T, strict=True)
    return sum(np.bitwise_count(a[:, None] ^ b[None, :]).astype(np.uint16) for a, b in words)


def _same(values: pd.Series) -> np.ndarray:
    """Edges [n, 2] from each row (its label) to the first one of the same value; missing values are like no other."""
    rows = values.dropna().index.to_series()
    first = rows.groupby(values.dropna()).transform("min")
    return np.stack([first, rows], axis=1).astype(np.int32)


def _near(images: pd.DataFrame, bits: int) -> np.ndarray:
    """Edges [n, 2] between rows (their labels) whose hashes differ in at most so many bits."""
    hashes, rows, found = hash_array(images["dhash"]), images.index.to_numpy(np.int32), [np.empty((0, 2), np.int32)]
    for start in range(0, len(rows), CHUNK):
        close = distances(hashes[start : start + CHUNK], hashes[start:]) <= bits
        i, j = np.nonzero(np.triu(close, k=1))
        found.append(np.stack([rows[start + i], rows[start + j]], axis=1))
    return np.concatenate(found)


def assign_splits(questions: pd.DataFrame, shares: dict[str, float], seed: int) -> pd.Series:
    """A split for each question such that no group is in two, stratified by modality and question types.

    questions: columns group, image_key, modality, question_type. shares: split name -> share of the images; sum 1.

    Groups are sorted by stratum (modality, the set of their question types), shuffled inside it, and dealt out
    systematically by their images, so each stratum's shares are right to within two images or so where groups are
    single images. A group of more than half the smallest split's images of its modality goes to the largest split,
    for it would be most of a smaller one. Deterministic in (questions, seed).
    """
    dealt = questions.groupby("group").agg(
        modality=("modality", "first"),
        types=("question_type", lambda t: "|".join(sorted(set(t)))),
        images=("image_key", "nunique"),
    )
    rng = np.random.default_rng(seed)
    dealt["order"] = rng.permutation(len(dealt))
    dealt = dealt.sort_values(["modality", "types", "order"])
    before = dealt["images"].cumsum() - dealt["images"]
    position = (before.to_numpy() + rng.random()) * _golden_step() % 1.0  # [groups], equidistributed in [0, 1)
    names, edges = np.array(list(shares)), np.cumsum(list(shares.values()))
    dealt["split"] = names[np.searchsorted(edges, position, side="right").clip(max=len(edges) - 1)]
    room = dealt.groupby("modality")["images"].transform("sum") * min(shares.values()) / 2
    dealt.loc[(dealt["images"] > room) & (dealt["images"] > 1), "split"] = max(shares, key=shares.get)
    return questions["group"].map(dealt["split"])


def _golden_step() -> float:
    """The step of the low-discrepancy sequence (Weyl 1916, golden ratio): any run of it fills [0, 1) evenly."""
    return (5**0.5 - 1) / 2


def medvlm_r1(questions: pd.DataFrame, n_train: int, n_test: int, seed: int) -> pd.Series:
    """MedVLM-R1's split, image-disjoint: n_train MRI questions to train on, n_test of MRI, CT and X-ray each to test.

    questions: those of `assign_splits` with its splits, out of which these are drawn; MRI's val stays, the rest is
    UNUSED. Raises ValueError where there are not so many.
    """
    made = pd.Series(UNUSED, questions.index)
    made[(questions["split"] == "val") & (questions["modality"] == MEDVLM_TRAIN)] = "val"
    wanted = [("train", MEDVLM_TRAIN, n_train), *(("test", modality, n_test) for modality in MEDVLM_TEST)]
    rng = np.random.default_rng(seed)
    for name, modality, n in wanted:
        there = questions.index[(questions["split"] == name) & (questions["modality"] == modality)]
        if len(there) < n:
            raise ValueError(
                f"data.split: medvlm-r1 wants {n} questions of {modality} in {name}, the shares leave {len(there)}; "
                f"change data.split.{name} or {name}_questions"
            )
        made[rng.choice(there, n, replace=False)] = name
    return made


def published_splits(questions: pd.DataFrame, folder: Path, shares: dict[str, float], seed: int) -> pd.Series:
    """The split of Med-R1's files, folder/{train,test}/*.json, matched by image path and question.

    val is drawn out of train by image, as `shares` has them to each other. A question in neither file is UNUSED; one in
    both is test. How many of each file's questions are found is logged: a part of OmniMedVQA holds a part of them.
    Raises FileNotFoundError without files of either kind, ValueError where nothing of one kind is found.
    """
    made = pd.Series(UNUSED, questions.index)
    asked = list(zip(questions["image_path"], questions["question"], strict=True))
    columns = ["image_path", "question", "modality_file"]
    files = {name: pd.DataFrame(read_published(folder / name), columns=columns) for name in ("train", "test")}
    for name, rows in files.items():
        listed = rows.set_index(["image_path", "question"])["modality_file"]
        found = listed[listed.index.isin(asked)]
        for file, there in listed.groupby(listed):
            logging.info("%s/%s*.json: %d of %d questions found", folder / name, file, sum(found == file), len(there))
        if found.empty:
            raise ValueError(f"{folder / name}: none of its questions is prepared; are they of the same dataset?")
        made[pd.MultiIndex.from_tuples(asked).isin(listed.index)] = name
    train = questions[made == "train"]
    inner = {"train": shares["train"], "val": shares["val"]}
    total = sum(inner.values())
    made[train.index] = assign_splits(train, {name: share / total for name, share in inner.items()}, seed)
    return made


def read_published(folder: Path) -> list[dict]:
    """The questions of a folder of Med-R1's files, with modality_file, their file's name before its last "_".

    Questions that tell their answer are mended as `records.parse_record` does, so that both match. Raises
    FileNotFoundError without files, BadRecord naming file and record where one cannot be parsed.
    """
    files = json_files(folder)
    if not files:
        raise FileNotFoundError(f"{folder}: no *.json; data.split.published is a folder with Med-R1's train/ and test/")
    rows = []
    for file in files:
        for index, record in enumerate(read_list(file)):
            try:
                row = parse_med_r1(record)
            except BadRecord as error:
                raise BadRecord(f"{file}:{index}: {error}") from error
            question = without_answer(row["question"].strip(), [])
            rows.append({**row, "question": question, "modality_file": file.stem.rpartition("_")[0]})
    return rows
