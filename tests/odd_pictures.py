"""Pictures of kinds that exports and servers get wrong, each with its file name."""

from pathlib import Path

import numpy as np
from PIL import Image


def coloured(height: int = 45, width: int = 70) -> Image.Image:
    """Return a picture without any symmetry."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = rows * 255 // (height - 1), columns * 255 // (width - 1)
    return Image.fromarray(np.stack([red, green, rows * columns % 256], axis=2).astype(np.uint8))


def write_odd_pictures(folder: Path, picture: Image.Image | None = None) -> list[Path]:
    """Write an RGB picture in each kind of file; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = coloured() if picture is None else picture
    width, height = plain.size
    red, green = (np.asarray(plain)[..., channel] for channel in (0, 1))
    clear = plain.copy()
    clear.putalpha(Image.fromarray(green))
    turned = Image.Exif()
    turned[0x0112] = 6
    plain.save(folder / "plain.png")
    plain.convert("L").save(folder / "grey.jpg", quality=95)
    plain.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    plain.save(folder / "turned.jpg", quality=95, exif=turned)
    plain.convert("P").save(folder / "palette.gif")
    clear.save(folder / "clear.png")
    Image.fromarray(red.astype(np.uint16) * 257).save(folder / "grey16.png")
    plain.crop((0, 0, width, 1)).save(folder / "one_pixel_high.png")
    plain.crop((0, 0, 1, height)).save(folder / "one_pixel_wide.png")
    plain.save(folder / "progressive.jpg", quality=80, progressive=True)
    plain.save(folder / "lossy.webp", quality=80)
    (folder / "wrong_suffix.jpg").write_bytes((folder / "plain.png").read_bytes())
    return sorted(folder.iterdir())
