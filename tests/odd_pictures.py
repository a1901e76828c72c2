"""Pictures of kinds that exports and servers get wrong, each with its file name."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_odd_pictures(folder: Path, height: int = 45, width: int = 70) -> list[Path]:
    """Write a picture of each kind, coloured without symmetry; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = rows * 255 // max(1, height - 1), columns * 255 // max(1, width - 1)
    pixels = np.stack([red, green, (rows * columns) % 256], axis=2).astype(np.uint8)
    plain = Image.fromarray(pixels)
    clear = plain.copy()
    clear.putalpha(Image.fromarray((green % 256).astype(np.uint8)))
    turned = Image.Exif()
    turned[0x0112] = 6
    plain.save(folder / "plain.png")
    plain.convert("L").save(folder / "grey.jpg", quality=95)
    plain.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    plain.save(folder / "turned.jpg", quality=95, exif=turned)
    plain.convert("P").save(folder / "palette.gif")
    clear.save(folder / "clear.png")
    Image.fromarray((red * 257).astype(np.uint16)).save(folder / "grey16.png")
    plain.crop((0, 0, width, 1)).save(folder / "one_pixel_high.png")
    plain.crop((0, 0, 1, height)).save(folder / "one_pixel_wide.png")
    plain.save(folder / "progressive.jpg", quality=80, progressive=True)
    plain.save(folder / "lossy.webp", quality=80)
    (folder / "wrong_suffix.jpg").write_bytes((folder / "plain.png").read_bytes())
    return sorted(folder.iterdir())
