"""Draw the sample scans that ship: `python -m deploy.draw_samples [FOLDER]`, run by hand, the files committed.

Synthetic chests in the formats that centres send, and a few files that a night must turn away. Everything is
drawn from seeds; no file holds or derives from a patient's picture.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

from deploy.phantom import Chest, Film, Layer, draw, draw_on

SAMPLES = Path(__file__).parent / "samples"
Grey = NDArray[np.uint8]
Mat = np.ndarray[Any, np.dtype[np.integer[Any] | np.floating[Any]]]
Writer = Callable[[Path, Layer, int], None]


def eight_bits(picture: Layer) -> Grey:
    """0-1 -> 0-255."""
    return np.rint(picture * 255).astype(np.uint8)


def png(path: Path, picture: Layer, number: int) -> None:
    """Eight bits."""
    _write_image(path.with_suffix(".png"), eight_bits(picture))


def png_16(path: Path, picture: Layer, number: int) -> None:
    """Sixteen bits, of which twelve are used, as many detectors give them."""
    _write_image(path.with_suffix(".png"), np.rint(picture * 4095).astype(np.uint16))


def jpeg(path: Path, picture: Layer, number: int) -> None:
    """Eight bits, compressed with loss."""
    _write_image(path.with_suffix(".jpg"), eight_bits(picture), [cv2.IMWRITE_JPEG_QUALITY, 95])


def jpeg_colour(path: Path, picture: Layer, number: int) -> None:
    """A grey picture saved as colour."""
    _write_image(path.with_suffix(".jpg"), cv2.cvtColor(eight_bits(picture), cv2.COLOR_GRAY2BGR))


def png_framed(path: Path, picture: Layer, number: int) -> None:
    """Black bands of uneven width around the picture, and a letter on one of them."""
    top, bottom, left, right = 34, 12, 60, 52
    framed = cv2.copyMakeBorder(eight_bits(picture), top, bottom, left, right, cv2.BORDER_CONSTANT, value=[3])
    cv2.putText(framed, "R", (14, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.9, [235], 2, cv2.LINE_AA)
    _write_image(path.with_suffix(".png"), framed)


def tiff(path: Path, picture: Layer, number: int) -> None:
    """Eight bits."""
    _write_image(path.with_suffix(".tif"), eight_bits(picture))


def dicom(path: Path, picture: Layer, number: int) -> None:
    """Twelve bits in sixteen, JPEG-LS without loss."""
    dataset = header(number)
    _fill(dataset, np.rint(picture * 4095).astype(np.uint16), bits=12)
    dataset.compress(JPEGLSLossless)
    dataset.save_as(path.with_suffix(".dcm"), enforce_file_format=True)


def dicom_inverted(path: Path, picture: Layer, number: int) -> None:
    """MONOCHROME1: bone is stored dark."""
    dataset = header(number, PhotometricInterpretation="MONOCHROME1")
    _fill(dataset, 255 - eight_bits(picture), bits=8)
    dataset.save_as(path.with_suffix(".dcm"), enforce_file_format=True)


def header(number: int, **tags: object) -> Dataset:
    """Tags of a synthetic DICOM object; `tags` replace or add some."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    uid = generate_uid(entropy_srcs=["nightread sample", str(number)])
    usual = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation, "SOPInstanceUID": uid, "Modality": "DX",
        "StudyInstanceUID": generate_uid(entropy_srcs=["nightread study", str(number)]),
        "PatientID": f"SYNTHETIC-{number:02}", "PatientName": f"Synthetic^Sample {number}",
        "PatientAge": f"{30 + number % 50:03}Y", "ViewPosition": "PA", "BodyPartExamined": "CHEST",
        "ImageComments": "drawn by nightread; no patient", "BurnedInAnnotation": "NO",
        "PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1, "PixelRepresentation": 0,
    }  # fmt: skip
    for name, value in {**usual, **tags}.items():
        setattr(dataset, name, value)
    return dataset


def _fill(dataset: Dataset, samples: NDArray[np.generic], *, bits: int) -> None:
    dataset.Rows, dataset.Columns = samples.shape[-2:]
    dataset.BitsStored, dataset.HighBit, dataset.BitsAllocated = bits, bits - 1, 8 * samples.itemsize
    dataset.PixelData = samples.tobytes()


def _write_image(path: Path, samples: Mat, options: Sequence[int] = ()) -> None:
    done, content = cv2.imencode(path.suffix, samples, list(options))
    if not done:
        raise ValueError(f"OpenCV cannot write {path.suffix}")
    path.write_bytes(content.tobytes())


# Seed, pixels a side, opacities (0 clear to 1 patchy), format.
CHESTS: tuple[tuple[int, int, float, Writer], ...] = (
    (1043, 448, 0.0, jpeg), (1122, 448, 0.0, png), (303, 512, 0.9, jpeg), (1018, 448, 0.0, dicom),
    (1050, 448, 0.0, jpeg), (306, 400, 1.0, dicom), (1003, 448, 0.0, png_framed), (1094, 448, 0.0, jpeg_colour),
    (309, 360, 0.7, png_16), (1078, 448, 0.0, tiff), (311, 448, 0.5, png), (1031, 448, 0.0, dicom_inverted),
    (313, 512, 1.0, jpeg), (1125, 448, 0.0, jpeg), (1134, 400, 0.0, png_16), (316, 400, 0.8, dicom),
    (1120, 448, 0.0, jpeg), (318, 448, 0.9, png_framed), (319, 640, 0.6, jpeg), (1028, 448, 0.0, jpeg_colour),
    (1054, 448, 0.0, png), (322, 512, 0.8, jpeg), (1014, 640, 0.0, jpeg), (1041, 448, 0.0, dicom),
    (325, 512, 1.0, jpeg), (1051, 448, 0.0, jpeg),
)  # fmt: skip


# Seed and film of chests with clear lungs. The model flags nearly every drawing, so films were looked for (their
# parameters by trial, against the model that ships) on which it does not: they show the page, not the model's worth.
CLEAR: tuple[tuple[int, Film, Writer], ...] = (
    (5020, Film(0.943, 0.016, 0.068, 0.657, 0.745, 0.000, 0.000, 3.531, 1.632, 0.005, 1.002, 0.967), png),
    (5007, Film(0.980, 0.002, 0.083, 0.778, 0.648, 0.007, 0.000, 3.775, 1.517, 0.003, 1.000, 0.989), jpeg),
    (5015, Film(0.892, 0.014, 0.051, 0.519, 0.871, 0.002, 0.126, 4.508, 1.670, 0.008, 1.000, 0.986), png),
    (5019, Film(0.854, 0.005, 0.077, 0.681, 0.706, 0.000, 0.106, 3.368, 1.663, 0.004, 1.000, 0.998), png),
    (5011, Film(0.980, 0.000, 0.083, 0.647, 0.732, 0.013, 0.058, 3.795, 1.667, 0.002, 1.000, 0.996), png),
)


def draw_chests(folder: Path) -> None:
    """Write chest-01 and so on."""
    for number, (seed, size, opacities, write) in enumerate(CHESTS, start=1):
        write(folder / f"chest-{number:02}", draw(Chest(seed, size, opacities)), number)
    for number, (seed, film, write) in enumerate(CLEAR, start=len(CHESTS) + 1):
        write(folder / f"chest-{number:02}", draw_on(Chest(seed, 448), film), number)


def draw_odd_ones(folder: Path) -> None:
    """Write what a night must turn away, each for another reason."""
    chest = draw(Chest(140, 256))
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.png").write_text("Please call before noon about the new film scanner.\n", "utf-8")
    jpeg(folder / "cut-short", draw(Chest(141, 384)), 0)
    content = (folder / "cut-short.jpg").read_bytes()
    (folder / "cut-short.jpg").write_bytes(content[: len(content) // 2])
    lateral = header(90, ViewPosition="LL")
    _fill(lateral, eight_bits(chest), bits=8)
    lateral.save_as(folder / "from-the-side.dcm", enforce_file_format=True)
    film = header(91, NumberOfFrames=2)
    _fill(film, np.stack([eight_bits(chest)[::2, ::2]] * 2), bits=8)
    film.save_as(folder / "two-frames.dcm", enforce_file_format=True)
    child = header(92, PatientAge="007Y")
    _fill(child, eight_bits(draw(Chest(142, 256))), bits=8)
    child.save_as(folder / "child.dcm", enforce_file_format=True)
    _write_image(folder / "garden.jpg", landscape(), [cv2.IMWRITE_JPEG_QUALITY, 85])
    jpeg(folder / "chest-01-again", draw(Chest(*CHESTS[0][:3])), 0)


def landscape() -> Grey:
    """Draw a house on a meadow under a sun: a picture that is no X-ray."""
    rng = np.random.default_rng(7)
    image = np.full((480, 640, 3), (230, 190, 140), np.uint8)
    image[300:] = rng.integers((20, 90, 20), (60, 170, 70), (180, 640, 3), dtype=np.uint8)
    cv2.circle(image, (540, 90), 45, (80, 230, 250), -1, cv2.LINE_AA)
    cv2.rectangle(image, (180, 190), (400, 360), (120, 140, 200), -1)
    cv2.fillPoly(image, [np.array([[150, 195], [290, 90], [430, 195]])], (60, 60, 160), cv2.LINE_AA)
    for left, top, right, bottom in ((210, 220, 260, 270), (320, 220, 370, 270), (265, 290, 315, 360)):
        cv2.rectangle(image, (left, top), (right, bottom), (70, 50, 40), -1)
    return image


def main() -> None:
    """Draw everything into FOLDER, the shipped samples unless given."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES
    for part, draw_part in (("scans", draw_chests), ("odd", draw_odd_ones)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        draw_part(folder / part)


if __name__ == "__main__":
    main()
