"""Folders of small synthetic scans, good and bad, drawn from a seed; each file's outcome is known beforehand.

The oracle reads and prepares each file as a worker's decoder does, and asks the stub for the score of its pixels."""

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.uid import UID, ExplicitVRLittleEndian

from db.words import Kind, Reason
from deploy.drill import stub
from deploy.drill.runs import Expected, ExpectedOutcome
from workers.images import Limits, read, to_grey8
from workers.preprocessing import prepare

SITE = "drill"
SHARE = 0.1  # of the cleared, drawn for the worklist
SIDE = 72  # pixels; the model sees 64
PRELUDE = 0.08  # the share that is submitted before any worker runs, so that some of it can change or go
DX_STORAGE = UID("1.2.840.10008.5.1.4.1.1.1.1")
BOMB_SIDE = 12_000

Bytes = Callable[["Pen"], bytes]


@dataclass
class Pen:
    """Draws one file: its noise, and the strings that nobody may ever see outside the database."""

    noise: np.random.Generator
    canaries: list[str] = field(default_factory=list)

    def canary(self) -> str:
        """A new string that would show a leak."""
        self.canaries.append(f"Canary{self.noise.bytes(8).hex()}")
        return self.canaries[-1]

    def picture(self) -> NDArray[np.uint8]:
        """A grey picture without a border, unlike any other."""
        coarse = self.noise.integers(70, 200, (9, 9), dtype=np.uint8)
        fine = self.noise.integers(-20, 20, (SIDE, SIDE))
        grey = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) + fine
        levels: NDArray[np.uint8] = np.clip(grey, 40, 230).astype(np.uint8)
        return levels


def _png(pen: Pen) -> bytes:
    data = _encoded(".png", pen.picture())
    text = b"tEXt" + b"Patient\0" + pen.canary().encode()
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return data[:33] + chunk + data[33:]  # after IHDR


def _jpeg(pen: Pen) -> bytes:
    data = _encoded(".jpg", pen.picture())
    comment = pen.canary().encode()
    return data[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + data[2:]


def _dicom(pen: Pen) -> bytes:
    pixels = pen.picture()
    made = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = DX_STORAGE
    uid = UID(f"1.2.826.0.1.3680043.8.498.{int.from_bytes(pen.noise.bytes(7), 'big')}")
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = uid
    made.StudyInstanceUID, made.SeriesInstanceUID = f"{uid}.1", f"{uid}.2"
    made.PatientID, made.PatientName = pen.canary(), f"{pen.canary()}^Drill"
    made.PatientAge, made.StudyDate = "047Y", "20260105"
    made.Modality, made.BodyPartExamined, made.ViewPosition = "DX", "CHEST", "PA"
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OB"
    stream = DicomBytesIO()
    made.save_as(stream, enforce_file_format=True)
    return bytes(stream.getvalue())


def _truncated(pen: Pen) -> bytes:
    whole = _jpeg(pen) if pen.noise.integers(2) else _png(pen)
    return whole[: len(whole) * 2 // 3]


def _text(pen: Pen) -> bytes:
    return f"Dear colleague, {pen.canary()} was seen today.\n".encode()


def _empty(pen: Pen) -> bytes:
    return b""


def _bomb(pen: Pen) -> bytes:
    """A few kB that unfold to 144 megapixels."""
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(2**20), 9) + pen.noise.bytes(8)  # nobody may get as far as to miss the rest
    parts = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    chunks = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _blank(pen: Pen) -> bytes:
    grey = np.full((SIDE, SIDE), pen.noise.integers(60, 200), np.uint8)
    grey[0, :8] += pen.noise.integers(1, 4, 8, dtype=np.uint8)  # no two alike
    return _encoded(".png", grey)


def _encoded(suffix: str, grey: NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(suffix, grey)[1].tobytes())


# What a folder is made of: suffix, share in a hundred, how it is drawn, why it is rejected (None: it is scored).
KINDS: tuple[tuple[str, float, Bytes, Reason | None], ...] = (
    (".png", 46, _png, None),
    (".jpg", 22, _jpeg, None),
    (".dcm", 22, _dicom, None),
    (".jpeg", 2.5, _truncated, Reason.TRUNCATED),
    (".txt", 1.5, _text, Reason.NOT_AN_IMAGE),
    (".png", 1.0, _empty, Reason.EMPTY),
    (".png", 1.5, _blank, Reason.BLANK),
    (".png", 0.5, _bomb, Reason.TOO_LARGE),
)
DUPLICATES = 3.0  # a hundred
# Names that a file system allows and a programmer forgets.
ODD_NAMES = (b"caf\xe9", b"two\nlines", "größer".encode(), b"a;b'c\"", b"<script>")


@dataclass
class Folders:
    """What was written for a run: `prelude` first, then the others in the order of their submission."""

    prelude: Expected
    others: tuple[Expected, ...]
    canaries: tuple[str, ...]
    marks: dict[str, str]  # digest of pixels -> how the stub misbehaves over them
    leaving: tuple[Path, ...]  # files of the prelude to be removed after its submission
    changing: tuple[Path, ...]  # and to be changed

    @property
    def expected(self) -> tuple[Expected, ...]:
        return (self.prelude, *self.others)


def write(into: Path, *, seed: int, scans: int, poison: int, hangs: int) -> Folders:
    """Write `scans` files in several folders, among them some that kill (`poison`) or hang the worker."""
    noise = np.random.default_rng([seed, scans])
    early = max(8, round(PRELUDE * scans))
    sizes = _sizes(scans - early, noise)
    pen = Pen(noise)
    marks: dict[str, str] = {}
    prelude = _folder(into / "prelude", early, pen, odd=len(ODD_NAMES))
    leaving, changing = _unsteady(prelude)
    others = [_folder(into / f"folder{number}", size, pen, odd=1) for number, size in enumerate(sizes, 1)]
    for number, how in enumerate(["kill"] * poison + ["hang"] * hangs):
        _add_poison(others[number % len(others)], pen, marks, how, number)
    return Folders(prelude, tuple(others), tuple(pen.canaries), marks, tuple(leaving), tuple(changing))


def change(folders: Folders) -> None:
    """After the submission of the prelude: remove and change what was planned."""
    for file in folders.leaving:
        file.unlink()
    for file in folders.changing:
        file.write_bytes(file.read_bytes() + b"\0")


def expected_score(data: bytes) -> float:
    """What the stub must give a file, by the worker's own reading and preprocessing."""
    pixels, _ = prepare(to_grey8(read(data, Limits())), stub.INPUT_SIZE)
    return stub.score(pixels)


def _sizes(scans: int, noise: np.random.Generator) -> list[int]:
    count = max(2, min(8, scans // 200))
    shares = noise.uniform(0.5, 1.5, count)
    sizes = [int(scans * share / shares.sum()) for share in shares]
    sizes[-1] += scans - sum(sizes)
    return sizes


def _folder(root: Path, count: int, pen: Pen, *, odd: int) -> Expected:
    root.mkdir(parents=True)
    files: dict[bytes, ExpectedOutcome] = {}
    contents: list[bytes] = []
    copies = round(count * DUPLICATES / 100)
    shares = np.array([share for _, share, _, _ in KINDS])
    kinds = pen.noise.choice(len(KINDS), count - copies, p=shares / shares.sum())
    names = _names(count, pen, odd)
    has_empty = False
    for name, which in zip(names, kinds.tolist(), strict=False):
        suffix, _, draw, reason = KINDS[which]
        if draw is _empty and has_empty:
            suffix, _, draw, reason = KINDS[0]
        has_empty |= draw is _empty
        data = draw(pen)
        path = name + suffix.encode()
        _write(root, path, data)
        if reason is None:
            contents.append(data)
            files[path] = ExpectedOutcome(Kind.SCORED, score=expected_score(data))
        else:
            files[path] = ExpectedOutcome(Kind.REJECTED, reason=reason)
    for name in names[count - copies :]:  # in the last folder by name, so that they are found after their originals
        path = b"zz/" + name.rsplit(b"/", 1)[-1]
        _write(root, path, contents[int(pen.noise.integers(len(contents)))])
        files[path] = ExpectedOutcome(Kind.REJECTED, reason=Reason.DUPLICATE)
    return Expected(SITE, root, files)


def _names(count: int, pen: Pen, odd: int) -> list[bytes]:
    """Paths without suffix, some in subfolders; each names a patient, as sites' files do."""
    names = [f"{pen.canary()}_{number:05d}".encode() for number in range(count)]
    for number in range(0, count, 7):
        names[number] = b"ward%d/" % (number % 3) + names[number]
    for number, strange in enumerate(ODD_NAMES[:odd]):
        names[number] += strange
    return names


def _unsteady(prelude: Expected) -> tuple[list[Path], list[Path]]:
    """Choose scored files that will go or change, and expect so; none that a duplicate was copied from matters: the
    copy was rejected at submission."""
    files = dict(prelude.files)
    scored = sorted(path for path, outcome in files.items() if outcome.kind == Kind.SCORED)
    few = max(1, len(scored) // 16)
    leaving, changing = scored[:few], scored[few : 2 * few]
    files |= dict.fromkeys(leaving, ExpectedOutcome(Kind.REJECTED, reason=Reason.MISSING))
    files |= dict.fromkeys(changing, ExpectedOutcome(Kind.REJECTED, reason=Reason.CHANGED_SINCE_SUBMISSION))
    _replace(prelude, files)
    return [_place(prelude.root, path) for path in leaving], [_place(prelude.root, path) for path in changing]


def _add_poison(folder: Expected, pen: Pen, marks: dict[str, str], how: str, number: int) -> None:
    data = _png(pen)
    pixels, _ = prepare(to_grey8(read(data, Limits())), stub.INPUT_SIZE)
    marks[stub.digest(pixels).hex()] = how
    path = f"m_{pen.canary()}_{number}.png".encode()
    _write(folder.root, path, data)
    _replace(folder, {**folder.files, path: ExpectedOutcome(Kind.FAILED, reason="worker_died|timed_out")})


def _replace(folder: Expected, files: dict[bytes, ExpectedOutcome]) -> None:
    object.__setattr__(folder, "files", files)


def _place(root: Path, path: bytes) -> Path:
    return root / os.fsdecode(path)


def _write(root: Path, path: bytes, data: bytes) -> None:
    place = _place(root, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
