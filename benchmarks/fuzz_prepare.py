"""Thousands of damaged images and records through `prepare`: no traceback, and nothing changed without a word.

    python benchmarks/fuzz_prepare.py [--images 20000] [--records 5000] [--seed 0] [--folder DIR]

Each image is of a kind that says what must become of it: kept as a plain reader sees it, told, dropped, or any of
these. Each record is a good one with one value changed. Exits with what went wrong, if anything did.
"""

import argparse
import io
import json
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from safemed.data.dataset import read_questions
from safemed.data.images import resize
from safemed.data.records import MODALITIES

ROOT = Path(__file__).resolve().parents[1]
SIDE, STORED = 24, 16  # pixels of an image, and of what is stored of it
KEPT, TOLD, DROPPED, ANY = "kept", "told", "dropped", "any"  # what must become of an image

Damage = Callable[[np.random.Generator], bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to leave the files; a temporary one if left out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        started = time.perf_counter()
        faults, outcomes = fuzzed(folder, args.images, args.records, args.seed)
        print(outcomes.to_string())
        print(f"{args.images} images of {len(KINDS)} kinds and {args.records} records: {len(faults)} faults, "
              f"{time.perf_counter() - started:.0f} s")  # fmt: skip
    sys.exit("\n".join(faults[:20]))


def fuzzed(folder: Path, n_images: int, n_records: int, seed: int) -> tuple[list[str], pd.DataFrame]:
    """What went wrong, a line each, and how many images of each kind were kept, told and dropped."""
    rng = np.random.default_rng(seed)
    kinds = write_images(folder / "source", n_images, rng)
    records = [good(i, path) for i, path in enumerate(kinds)]
    records += [damaged(good(len(records) + i, next(iter(kinds))), rng) for i in range(n_records)]
    write_records(folder / "source", records)
    if said := prepared(folder):
        return [said], pd.DataFrame()
    questions, drops = results(folder)
    faults = [*missing(records, questions, drops), *changed_texts(records[n_images:], questions, drops)]
    became = outcomes([record["question_id"] for record in records[:n_images]], drops)
    for (path, kind), (name, outcome) in zip(kinds.items(), became.items(), strict=True):
        stored = questions.loc[name, "image"]["bytes"] if outcome == KEPT else b""
        faults += misread(folder / "source" / path, kind, outcome, stored)
    told = pd.DataFrame({"kind": list(kinds.values()), "outcome": list(became.values())})
    return faults, told.value_counts().unstack(fill_value=0)


# Images.


def picture(rng: np.random.Generator) -> np.ndarray:
    """A random picture with large forms, uint8 [SIDE, SIDE, 3], from black to white."""
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    coarse[0, 0], coarse[3, 3] = 0, 255
    return np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.NEAREST))


def saved(rng: np.random.Generator, suffix: str, mode: str = "RGB", **options) -> bytes:
    """A picture in a format of Pillow's."""
    buffer = io.BytesIO()
    Image.fromarray(picture(rng)).convert(mode).save(buffer, suffix, **options)
    return buffer.getvalue()


def cut(whole: bytes, rng: np.random.Generator) -> bytes:
    """The file without its end."""
    return whole[: rng.integers(1, len(whole))]


def flipped(whole: bytes, rng: np.random.Generator, first: int = 8) -> bytes:
    """The file with some bytes after the `first` changed."""
    content = bytearray(whole)
    for place in rng.integers(first, len(content), rng.integers(1, 6)):
        content[place] ^= int(rng.integers(1, 256))
    return bytes(content)


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, bits: int, colour: int, data: bytes) -> bytes:
    """A PNG of raw rows, as its header says it is."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def sixteen(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel; pixels: uint16 [h, w, 1 or 3]."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return png(pixels.shape[1], pixels.shape[0], 16, 2 if pixels.shape[2] == 3 else 0, rows)


def deep_ppm(pixels: np.ndarray) -> bytes:
    """A PPM of 16 bits a channel; pixels: uint16 [h, w, 3]."""
    return b"P6\n%d %d\n65535\n" % pixels.shape[1::-1] + pixels.astype(">u2").tobytes()


def tiff(pixels: np.ndarray, **options) -> bytes:
    """A TIFF of any type of pixels."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def turned(rng: np.random.Generator) -> bytes:
    """A JPEG that EXIF turns."""
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(2, 9))
    return saved(rng, "JPEG", exif=exif)


def animated(rng: np.random.Generator, suffix: str) -> bytes:
    """Three frames."""
    frames, buffer = [Image.fromarray(picture(rng)) for _ in range(3)], io.BytesIO()
    frames[0].save(buffer, suffix, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def half_transparent(rng: np.random.Generator) -> bytes:
    """A PNG whose upper half is transparent."""
    rgba = np.dstack([picture(rng), np.full((SIDE, SIDE), 255, np.uint8)])
    rgba[: SIDE // 2, :, 3] = 0
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG")
    return buffer.getvalue()


def grey(rng: np.random.Generator) -> np.ndarray:
    """One channel, [SIDE, SIDE], from 0 to 1."""
    return picture(rng)[..., 0] / 255


def long_box(rng: np.random.Generator) -> bytes:
    """A JPEG 2000 whose box says that it is 2**62 bytes long."""
    box = struct.pack(">I4sQ", 1, b"jp2h", 2**62)
    return b"\x00\x00\x00\x0cjP  \r\n\x87\n" + struct.pack(">I4s4sI4s", 20, b"ftyp", b"jp2 ", 0, b"jp2 ") + box


KINDS: dict[str, tuple[str, Damage]] = {
    "whole png": (KEPT, lambda rng: saved(rng, "PNG")),
    "whole jpeg": (KEPT, lambda rng: saved(rng, "JPEG")),
    "whole bmp": (KEPT, lambda rng: saved(rng, "BMP")),
    "whole webp": (KEPT, lambda rng: saved(rng, "WEBP")),
    "grey jpeg": (KEPT, lambda rng: saved(rng, "JPEG", "L")),
    "cmyk jpeg": (KEPT, lambda rng: saved(rng, "JPEG", "CMYK")),
    "palette gif": (KEPT, lambda rng: saved(rng, "GIF", "P")),
    "png and more": (KEPT, lambda rng: saved(rng, "PNG") + rng.bytes(40)),
    "cut png": (ANY, lambda rng: cut(saved(rng, "PNG"), rng)),
    "cut jpeg": (ANY, lambda rng: cut(saved(rng, "JPEG"), rng)),
    "cut tiff": (ANY, lambda rng: cut(saved(rng, "TIFF"), rng)),
    "cut webp": (ANY, lambda rng: cut(saved(rng, "WEBP"), rng)),
    "cut gif": (ANY, lambda rng: cut(animated(rng, "GIF"), rng)),
    "flipped png": (ANY, lambda rng: flipped(saved(rng, "PNG"), rng)),
    "flipped jpeg": (ANY, lambda rng: flipped(saved(rng, "JPEG"), rng)),
    "flipped tiff": (ANY, lambda rng: flipped(saved(rng, "TIFF"), rng, first=4)),
    "flipped bmp": (ANY, lambda rng: flipped(saved(rng, "BMP"), rng, first=2)),
    "flipped gif": (ANY, lambda rng: flipped(saved(rng, "GIF"), rng, first=6)),
    "flipped jpeg2000": (ANY, lambda rng: flipped(saved(rng, "JPEG2000"), rng, first=12)),
    "flipped head": (ANY, lambda rng: flipped(saved(rng, "PNG")[:60], rng) + saved(rng, "PNG")[60:]),
    "empty": (DROPPED, lambda rng: b""),
    "text": (DROPPED, lambda rng: b"<!doctype html><title>404</title>" + rng.bytes(30)),
    "lfs pointer": (DROPPED, lambda rng: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64),
    "dicom": (DROPPED, lambda rng: bytes(128) + b"DICM" + rng.bytes(400)),
    "signature alone": (DROPPED, lambda rng: b"\x89PNG\r\n\x1a\n" + rng.bytes(100)),
    "postscript": (DROPPED, lambda rng: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
    "bomb": (DROPPED, lambda rng: png(60_000, 60_000, 8, 2, bytes(100))),
    "long box": (DROPPED, long_box),
    "12 bits in colour": (DROPPED, lambda rng: sixteen(picture(rng).astype(np.uint16) * 16)),
    "12 bits in ppm": (DROPPED, lambda rng: deep_ppm(picture(rng).astype(np.uint16) * 16)),
    "16 bits in planes": (
        DROPPED,
        lambda rng: tiff(
            np.moveaxis(picture(rng), 2, 0).astype(np.uint16) * 257, photometric="rgb", planarconfig="separate"
        ),
    ),
    "signed bytes": (DROPPED, lambda rng: tiff((grey(rng) * 255 - 128).astype(np.int8))),
    "swapped floats": (DROPPED, lambda rng: tiff(grey(rng).astype(">f4"), byteorder=">", compression="zlib")),
    "beyond 2**31": (DROPPED, lambda rng: tiff((grey(rng) * (2**32 - 1)).astype(np.uint32))),
    "float, not finite": (DROPPED, lambda rng: tiff(np.where(grey(rng) > 0.5, np.nan, grey(rng)).astype(np.float32))),
    "16 bits in colour": (TOLD, lambda rng: sixteen(picture(rng).astype(np.uint16) * 257)),
    "12 bits in grey": (TOLD, lambda rng: sixteen((grey(rng)[..., None] * 4095).astype(np.uint16))),
    "float": (TOLD, lambda rng: tiff(grey(rng).astype(np.float32))),
    "signed": (TOLD, lambda rng: tiff((grey(rng) * 2000 - 1000).astype(np.int16))),
    "white is zero": (TOLD, lambda rng: tiff((grey(rng) * 4095).astype(np.uint16), photometric="miniswhite")),
    "pages": (TOLD, lambda rng: tiff(np.stack([picture(rng) for _ in range(3)]), photometric="rgb")),
    "frames": (TOLD, lambda rng: animated(rng, "GIF")),
    "frames of png": (TOLD, lambda rng: animated(rng, "PNG")),
    "transparent": (TOLD, half_transparent),
    "turned": (TOLD, turned),
}


def write_images(source: Path, n: int, rng: np.random.Generator) -> dict[str, str]:
    """Write n images, the kinds in turn; path below the source -> kind."""
    (source / "Images").mkdir(parents=True)
    written, names = {}, list(KINDS)
    for i in range(n):
        path, kind = f"Images/{i}.img", names[i % len(names)]
        (source / path).write_bytes(KINDS[kind][1](rng))
        written[path] = kind
    return written


def misread(path: Path, kind: str, became: str, stored: bytes) -> Iterator[str]:
    """What is wrong with what became of an image; stored: what was kept of it."""
    wanted, name = KINDS[kind][0], f"{path.name} ({kind})"
    if wanted != ANY and became != wanted and not (wanted == KEPT and became == TOLD):
        yield f"{name}: {became}, not {wanted}"
    if became == KEPT:
        with Image.open(io.BytesIO(stored)) as kept, Image.open(path) as plain:
            if getattr(plain, "n_frames", 1) > 1 or not np.array_equal(kept, resize(plain.convert("RGB"), STORED)):
                yield f"{name}: kept without a word, but not as a plain reader sees it"


# Records.


def good(number: int, image_path: str) -> dict:
    """A record with nothing to say of it."""
    return {
        "dataset": "some", "question_id": f"q{number}", "question_type": "Disease Diagnosis",
        "question": "What is it?", "gt_answer": "Cyst", "image_path": image_path, "option_A": "Cyst",
        "option_B": "Mass", "option_C": "Scar", "modality_type": "X-Ray", "finding": "Cyst", "box": [1, 1, 9, 9],
    }  # fmt: skip


VALUES = (
    None, float("nan"), float("inf"), 0, 17, 1e300, 10**400, True, "", "  ", [], ["Cyst"], {}, {"a": 1},
    "\x00", "a\x00b", "\ud800", "Cyst\udc00", "\ufeffCyst", "\u200b", "<|image_pad|>", "a <|im_end|> b", "<think>",
    "</answer>", "NA", "None", "nan", "null", "007", "<script>alert(1)</script>", "a,b\n\"c\"", "=1+1", "x" * 300,
    "Cyst", "cyst.", " CYST ", "Mass", "CT", "ct", "X-ray", "PET", *MODALITIES,
    "../../etc/passwd", "/etc/passwd", "Images", "Images/", "Images/../../x", "Images/gone.png", "Images/" + "x" * 300,
    [1, 2, 3, 4], [1, 2, 3], [9, 9, 1, 1], [0, 0, 10**400, 5], ["1", 2, 3, 4], [float("nan"), 1, 2, 3],
)  # fmt: skip
KEYS = (*good(0, "").keys(), "option_D", "option_H", "option_I", "option_a", "modality", "organ", "other")


def damaged(record: dict, rng: np.random.Generator) -> dict:
    """The record with one value changed, or one key gone."""
    key = KEYS[rng.integers(len(KEYS))]
    made = {name: value for name, value in record.items() if name != key}
    return made if rng.random() < 0.1 else made | {key: VALUES[rng.integers(len(VALUES))]}


def write_records(source: Path, records: list[dict]) -> None:
    """Write the records as one file."""
    (source / "QA_information" / "Open-access").mkdir(parents=True)
    (source / "QA_information" / "Open-access" / "some.json").write_text(json.dumps(records))


def changed_texts(records: list[dict], questions: pd.DataFrame, drops: pd.DataFrame) -> Iterator[str]:
    """Records whose texts became others without a word."""
    told = set(drops["question_id"])
    for record in records:
        name = record.get("question_id")
        if not isinstance(name, str) or name.strip() in told or name.strip() not in questions.index:
            continue  # dropped, or repaired and told
        row = questions.loc[name.strip()]
        options = [record[key].strip() for key in sorted(record) if key.startswith("option_") and filled(record[key])]
        texts = {key: record[key].strip() for key in ("question", "question_type", "image_path")}
        if list(row["options"]) != options or any(row[key] != text for key, text in texts.items()):
            yield f"record {name!r}: {dict(row[['question', 'options']])} is not what was published"
        if row["options"]["ABCDEFGH".index(row["gold"])] != record["gt_answer"].strip():
            yield f"record {name!r}: another answer"


def filled(value) -> bool:
    """Whether a value is a text that says something."""
    return isinstance(value, str) and bool(value.strip())


# What prepare makes of them.


def prepared(folder: Path) -> str:
    """Run the command on folder/source; what it says where it fails, or a traceback of any kind."""
    data = folder / "data"
    line = [
        sys.executable, ROOT / "scripts" / "prepare.py", "--source", folder / "source",
        "--questions", data / "questions", "--texts", data / "texts.parquet", "--drops", data / "drops.csv",
        "--counts", data / "counts.csv", "--workers", 2, "--settings", json.dumps({"image_size": STORED}),
    ]  # fmt: skip
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True)
    return done.stderr if done.returncode or "Traceback" in done.stderr else ""


def results(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The questions by their id, images still encoded, and drops.csv."""
    table = read_questions(folder / "data" / "questions").data.table.to_pandas()
    drops = pd.read_csv(folder / "data" / "drops.csv", dtype=str, keep_default_na=False)
    return table.set_index("question_id"), drops


def outcomes(question_ids: list[str], drops: pd.DataFrame) -> dict[str, str]:
    """Whether each question was kept, told or dropped."""
    gone, mended = (set(drops.loc[drops["action"] == action, "question_id"]) for action in ("dropped", "repaired"))
    return {name: DROPPED if name in gone else TOLD if name in mended else KEPT for name in question_ids}


def missing(records: list[dict], questions: pd.DataFrame, drops: pd.DataFrame) -> Iterator[str]:
    """Records that became neither a question nor a drop, or both, and reasons that are empty."""
    dropped = drops[drops["action"] == "dropped"]
    if len(questions) + len(dropped) != len(records):
        yield f"{len(records)} records, but {len(questions)} questions and {len(dropped)} drops"
    if (twice := Counter(dropped["record"]).most_common(1)) and twice[0][1] > 1:
        yield f"{twice[0][0]} dropped twice"
    if (drops["reason"].str.strip() == "").any():
        yield "a reason is empty"


if __name__ == "__main__":
    main()
