"""What Pillow makes of the pictures in a folder by the settings that thumbor has for it: `python encode.py FOLDER`, with
Pillow installed. For FOLDER/pictures/NAME.png it writes FOLDER/PEER/NAME.bin, the file, and FOLDER/PEER/NAME.png, what it
looks like."""

import pathlib
import sys

import PIL
from PIL import Image

PEERS = {"thumbor-webp": ("WEBP", {"quality": 80}), "thumbor-avif": ("AVIF", {"quality": 80})}

folder = pathlib.Path(sys.argv[1])
names = sorted((folder / "pictures").glob("*.png"))
for peer, (kind, settings) in PEERS.items():
    (folder / peer).mkdir(exist_ok=True)
    for name in names:
        encoded = folder / peer / (name.stem + ".bin")
        with Image.open(name) as picture:
            picture.save(encoded, kind, **settings)
        with Image.open(encoded) as decoded:
            decoded.convert("RGBA").save(folder / peer / name.name)
print(len(names), "pictures, Pillow", PIL.__version__)
