"""Draw ``docs/result.jpg``: phantom pairs of each HER2 level, stained by the shipped model.

``python tools/result_picture.py`` takes about a minute on two cores. The seed is in no training data.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw

import restain
from restain.phantom import write_phantom

OUT = Path(__file__).resolve().parents[1] / "docs/result.jpg"
SIZE, SEED, GAP = 384, 9301, 4


def main() -> None:
    """Make the pairs in a temporary folder, stain them and write the picture."""
    model = restain.load()
    with TemporaryDirectory() as folder:
        write_phantom(Path(folder), pairs=4, size=SIZE, seed=SEED, mpp=model.mpp, test_share=1)
        rows = []
        for path in sorted(Path(folder, "HE/test").iterdir()):
            level = path.stem.rsplit("_", 1)[-1]
            virtual = model.stain(path, mpp=model.mpp, progress=False)
            rows.append(
                [
                    labelled(np.asarray(Image.open(path).convert("RGB")), f"H&E, {level}"),
                    labelled(virtual.rgb, restain.NOTICE),
                    labelled(np.asarray(Image.open(Path(folder, "IHC/test", path.name)).convert("RGB")), "true IHC"),
                ]
            )
    step = SIZE + GAP
    sheet = Image.new("RGB", (step * len(rows) - GAP, step * 3 - GAP), "white")
    for column, images in enumerate(rows):
        for row, image in enumerate(images):
            sheet.paste(image, (step * column, step * row))
    sheet.save(OUT, quality=88)
    print(OUT)


def labelled(rgb: np.ndarray, text: str) -> Image.Image:
    """An ``(H, W, 3)`` picture with a text in its corner."""
    image = Image.fromarray(rgb)
    draw = ImageDraw.Draw(image)
    box = draw.textbbox((6, SIZE - 22), text)
    draw.rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), fill="white")
    draw.text((6, SIZE - 22), text, fill="black")
    return image


if __name__ == "__main__":
    main()
