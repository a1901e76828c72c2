"""From a file to the pixels a network sees, with numpy and Pillow alone.

Everything that looks at a picture (training, testing, export, prediction, serving) comes through
here, so that all of them see the same bytes. It imports nothing of ours: the exported model is
read with this file beside it and without torch.

Shapes: H, W height and width of a picture, S side of the square a network takes.
"""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError

Rule = Literal["stretch", "crop"]
Interpolation = Literal["bilinear", "nearest"]
StoredRule = Literal["stretch", "crop", "cover"]  # "cover" is for training pictures alone
FilePath = str | PathLike[str]
Source = FilePath | BinaryIO
Pixels = npt.NDArray[np.uint8]

# Named one by one: Pillow would also open PostScript, by starting Ghostscript on the file, and
# TGA, which has no signature and so is found in any noise.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF")
MAX_ASPECT = 4  # of a "cover" picture: its longer side to the shorter one
MAX_PIXELS = 178_956_970  # the size at which Pillow, too, refuses a file as a decompression bomb

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"II*\0", b"MM\0*")
_END_OF_JPEG = b"\xff\xd9"
# What EXIF orientation k asks for to get an upright picture; 1 is upright already.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG = 0x0112
_STRIP = 1 << 20  # pixels that are worked on at once, where the work needs copies

# Pillow talks about metadata that nothing here reads, and about sizes that `decode` checks itself.
warnings.filterwarnings("ignore", message="Corrupt EXIF data", module=r"PIL\.")
warnings.filterwarnings("ignore", message="Truncated File Read", module=r"PIL\.")
warnings.filterwarnings("ignore", message="Metadata Warning", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class BadImageError(ValueError):
    """A file that is no picture, or a picture of which not every pixel can be decoded.

    Attributes:
        path: the file.
        reason: what is wrong with it, in a few words, the same for files with the same fault.
    """

    def __init__(self, path: FilePath, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type["BadImageError"], tuple[Path, str]]:
        # The default passes the message alone, and the error of a worker process is then lost.
        return type(self), (self.path, self.reason)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a file becomes a network's input; stored in every checkpoint and every export.

    Attributes:
        image_size: S, the side in pixels of the square the network takes.
        resize: "stretch" ignores the aspect ratio, "crop" keeps it and takes the centre square.
        interpolation: "bilinear" mixes all pixels that one covers (antialiased); "nearest" takes
            one of them, as Keras does by default.
        classes: the names of the classes, in the order of the network's outputs.
        mean: subtracted per channel (red, green, blue) on the 0..1 scale, inside the network.
        std: divided by per channel after that, inside the network.
    """

    image_size: int
    resize: Rule
    classes: tuple[str, ...]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"image_size is {self.image_size}; it must be at least 1 pixel")
        if self.resize not in get_args(Rule):
            raise ValueError(f"resize is {self.resize!r}; it must be 'stretch' or 'crop'")
        if self.interpolation not in get_args(Interpolation):
            allowed = " or ".join(map(repr, get_args(Interpolation)))
            raise ValueError(f"interpolation is {self.interpolation!r}; it must be {allowed}")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(f"mean {self.mean} and std {self.std} must hold 3 numbers each")
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std}; each of the three must be above 0")

    def to_dict(self) -> dict[str, Any]:
        """Return plain types alone (int, str, lists), as JSON and checkpoints want them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Preprocessing":
        """Rebuild the record; raises ValueError where a field is missing or unknown."""
        known = {field.name for field in fields(cls)}
        if set(record) != known:
            raise ValueError(
                f"a preprocessing record has the fields {sorted(known)}, found {sorted(record)}"
            )
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in record.items()
        }
        return cls(**plain)


@contextmanager
def _bad_image_errors(
    name: FilePath, file: BinaryIO | None = None, most: int = MAX_PIXELS
) -> Iterator[None]:
    """Turn whatever Pillow throws at a bad file into BadImageError; lack of memory stays."""
    try:
        yield
    except (MemoryError, BadImageError):
        raise
    except Exception as error:
        raise BadImageError(name, _reason(error, file, most)) from error


def _reason(error: Exception, file: BinaryIO | None, most: int) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return _too_many(most)
    if isinstance(error, UnidentifiedImageError) and file is not None:
        file.seek(0)
        return "broken header" if file.read(4).startswith(_SIGNATURES) else "not a picture"
    if "truncated" in str(error).lower():
        return "truncated: pixels are missing at the end"
    return f"broken: {error or type(error).__name__}"


def _too_many(most: int) -> str:
    return f"too many pixels (at most {most:,} are read)"


def decode(
    source: Source, name: FilePath | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Decode every pixel of a file's first frame, in the mode and position it is stored in.

    `.format` of the result names what the content is, whatever the suffix says.

    Args:
        source: A path, or a file opened for reading bytes, at its beginning.
        name: What errors call it; None means the path.
        max_pixels: Of a picture that is decoded, up to MAX_PIXELS.

    Raises:
        BadImageError: the file is empty, no picture, damaged, or has too many pixels.
        OSError: the file is not there or can't be opened.
    """
    told = _name_of(source, name)
    if not isinstance(source, (str, PathLike)):
        return _decode(source, told, max_pixels)
    with open(source, "rb") as file:
        return _decode(file, told, max_pixels)


def _name_of(source: Source, name: FilePath | None) -> FilePath:
    if name is not None:
        return name
    return source if isinstance(source, (str, PathLike)) else "the picture"


def _decode(file: BinaryIO, name: FilePath, max_pixels: int) -> Image.Image:
    if not file.read(1):
        raise BadImageError(name, "empty file")
    file.seek(0)
    most = min(max_pixels, MAX_PIXELS)
    with _bad_image_errors(name, file, most):
        image = Image.open(file, formats=FORMATS)
        # Again here, because Pillow's own limit is a global that anybody may switch off.
        if image.width * image.height > most:
            raise BadImageError(name, _too_many(most))
        try:
            image.load()
        except OSError as error:
            if image.format not in ("JPEG", "MPO") or "truncated" not in str(error):
                raise
            file.seek(0)
            return _decode_without_end_marker(file.read(), error)
        return image


def _decode_without_end_marker(data: bytes, error: OSError) -> Image.Image:
    """Decode a JPEG that ends too early, if no more than its end marker is missing.

    libjpeg fills what is missing from the bytes that follow, and Pillow hides its warning. So the
    file is continued in two ways: where the pixels depend on the continuation, some are missing.
    """
    first, second = (
        Image.open(io.BytesIO(data + padding + _END_OF_JPEG), formats=("JPEG",))
        for padding in (b"", b"\xaa\x55" * 512)
    )
    if first.tobytes() != second.tobytes():
        raise error
    return first


def to_upright_rgb(image: Image.Image) -> Image.Image:
    """Turn a decoded picture as its EXIF orientation says, and convert it to RGB.

    Transparent pixels are laid on white: most pictures with transparency are cut-outs made for
    white pages, and what their transparent pixels hold is arbitrary. 16-bit grey is scaled down to
    8 bits, not clipped. 32-bit and float pictures carry no scale: see `_eight_bits`.
    """
    turn = _UPRIGHT.get(orientation_of(image))
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    elif image.has_transparency_data:
        image = _on_white(image)
    elif image.mode == "LAB":  # the one mode that `convert` can't turn into RGB
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
        image = converted if converted is not None else image
    if image.mode != "RGB":  # else a copy for nothing
        image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation 1..8; 1 where the EXIF block is absent or itself damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # any parser error of a damaged block; the pixels are fine all the same
        return 1


def _on_white(image: Image.Image) -> Image.Image:
    made = Image.new("RGB", image.size)
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)  # stored premultiplied by alpha
    for rows in _strips(image.width, image.height):
        strip = image.crop((0, rows.start, image.width, rows.stop))
        rgba = (strip.convert(straight) if straight else strip).convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        made.paste(Image.alpha_composite(white, rgba).convert("RGB"), (0, rows.start))
    return made


def _strips(width: int, height: int) -> Iterator[slice]:
    """Yield rows that together make a picture; copies of them need little memory."""
    step = max(1, _STRIP // max(1, width))
    for top in range(0, height, step):
        yield slice(top, min(height, top + step))


def _eight_bits(values: npt.NDArray[Any]) -> Pixels:
    """Scale grey values [H, W] of 16 or 32 bits or float down to 0..255.

    Whole numbers are taken as 16-bit. Floats are taken as 0..1, or as 0..255 where some lie above
    1. Values outside (negative, above 65,535 or above 255) have no scale of their own: they are
    stretched from their smallest to their largest. What is not finite becomes black.
    """
    made = np.zeros(values.shape, np.uint8)
    strips = list(_strips(values.shape[1], values.shape[0]))
    ends = [end for rows in strips for end in _ends(values[rows])]
    if not ends:
        return made
    low, high = min(ends), max(ends)
    steps = (65535.0,) if values.dtype.kind in "iu" else (1.0, 255.0)
    top = next((step for step in steps if low >= 0 and high <= step), None)
    start, top = (0.0, top) if top is not None else (low, max(high - low, 1e-12))
    for rows in strips:
        grey = values[rows].astype(np.float64)
        grey = np.where(np.isfinite(grey), grey - start, 0.0)
        made[rows] = np.rint(np.clip(grey / top, 0.0, 1.0) * 255.0).astype(np.uint8)
    return made


def _ends(values: npt.NDArray[Any]) -> tuple[float, ...]:
    """Return the smallest and the largest of finite values; none where none is finite."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else ()


def open_rgb(
    source: Source, name: FilePath | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read a file as an upright RGB picture with every pixel decoded.

    Of an animation, the first frame. Transparency is composited on white.

    Args:
        source: As of `decode`; so are the others.
        name: What errors call it.
        max_pixels: Of a picture that is decoded.

    Raises:
        BadImageError: the file is empty, no picture, damaged, or has too many pixels.
        OSError: the file is not there or can't be opened.
    """
    image = decode(source, name, max_pixels)
    with _bad_image_errors(_name_of(source, name)):
        return to_upright_rgb(image)


def resize(
    image: Image.Image,
    image_size: int,
    rule: StoredRule,
    interpolation: Interpolation = "bilinear",
) -> Image.Image:
    """Resize to image_size x image_size.

    Args:
        image: a picture of any size, one pixel high or wide included.
        image_size: S, the side of the result in pixels.
        rule: "stretch" ignores the aspect ratio; "crop" brings the shorter side to S and takes
            the centre square, in one step: the box keeps its fractions of a pixel. "cover" brings
            the shorter side to S and keeps the longer one, up to MAX_ASPECT times S of its middle.
        interpolation: see `Preprocessing`.
    """
    side = min(image.size)
    most = {"stretch": max(image.size), "crop": side, "cover": MAX_ASPECT * side}[rule]
    width, height = (min(length, most) for length in image.size)  # of what is kept, the middle
    left, top = (image.width - width) / 2, (image.height - height) / 2
    target = (image_size, image_size)
    if rule == "cover":
        target = (round(width * image_size / side), round(height * image_size / side))
    box = (left, top, left + width, top + height)
    return image.resize(target, Image.Resampling[interpolation.upper()], box=box)


def load_pixels(
    source: Source,
    image_size: int,
    rule: StoredRule,
    interpolation: Interpolation = "bilinear",
    name: FilePath | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Pixels:
    """Read a file as uint8 [S, S, 3], or [H, W, 3] by "cover"; raises what `open_rgb` raises.

    Args:
        source: As of `decode`; so are name and max_pixels.
        image_size: As of `resize`; so are rule and interpolation.
        rule: How the picture is fitted.
        interpolation: How pixels are mixed.
        name: What errors call it.
        max_pixels: Of a picture that is decoded.
    """
    image = open_rgb(source, name, max_pixels)
    with _bad_image_errors(_name_of(source, name)):
        return np.array(resize(image, image_size, rule, interpolation))
