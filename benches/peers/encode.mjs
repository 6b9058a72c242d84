// What sharp makes of the pictures in a folder, by its own defaults (which are ipx's too), by those that imgproxy and imagor
// have for the same libvips, and at a row of other qualities: `node encode.mjs FOLDER`, with sharp installed beside it.
// For FOLDER/pictures/NAME.png it writes FOLDER/PEER/NAME.bin, the file, and FOLDER/PEER/NAME.png, what it looks like.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const sharp = createRequire(join(process.cwd(), "package.json"))("sharp");
sharp.concurrency(1);

// Both leave libvips to halve the colour planes of AVIF, as it does below quality 90.
const halved = { chromaSubsampling: "4:2:0" };

const peers = {
  "sharp-webp": (picture) => picture.webp(),
  "sharp-avif": (picture) => picture.avif(),
  "sharp-jpeg": (picture) => picture.jpeg(),
  "sharp-png": (picture) => picture.png(),
  "imgproxy-webp": (picture) => picture.webp({ quality: 79, effort: 4 }),
  "imgproxy-avif": (picture) => picture.avif({ quality: 63, effort: 1, ...halved }),
  "imagor-webp": (picture) => picture.webp({ quality: 75, effort: 4 }),
  "imagor-avif": (picture) => picture.avif({ quality: 80, effort: 4, ...halved }),
};
for (let quality = 72; quality <= 92; quality += 2) {
  peers[`sharp-webp@${quality}`] = (picture) => picture.webp({ quality });
}
for (let quality = 50; quality <= 74; quality += 2) {
  peers[`sharp-avif@${quality}`] = (picture) => picture.avif({ quality });
}

const [folder] = process.argv.slice(2);
const names = readdirSync(join(folder, "pictures")).filter((name) => name.endsWith(".png"));
for (const [peer, encode] of Object.entries(peers)) {
  mkdirSync(join(folder, peer), { recursive: true });
  for (const name of names) {
    const file = await encode(sharp(readFileSync(join(folder, "pictures", name)))).toBuffer();
    writeFileSync(join(folder, peer, name.replace(/png$/, "bin")), file);
    writeFileSync(join(folder, peer, name), await sharp(file).png({ compressionLevel: 1 }).toBuffer());
  }
}
console.log(JSON.stringify({ pictures: names.length, ...sharp.versions }));
