// The picture that was asked about, with a mask or boxes over it. It is shown as it is stored, as networks see it: not turned by its EXIF data.

import { css, rgb } from "./colours.js";
import { el } from "./dom.js";

const MOST_WIDTH = 560, MOST_HEIGHT = 420; // small pictures are shown larger
const UNKNOWN = 255;
const OPACITY = 140; // of 255

/** Return a JPEG without the word that makes a browser turn it as its EXIF data say; of any other file, the file. */
export async function asStored(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const start = Array.from(bytes.subarray(0, 65536), (byte) => String.fromCharCode(byte)).join("");
  const place = start.indexOf("Exif\0\0");
  if (!start.startsWith("\xff\xd8") || place < 0) return file;
  bytes[place] = 0;
  return new Blob([bytes], { type: file.type });
}

/** Return a picture with `over`, elements as large as it. */
export function pictureWith(url, over) {
  const image = el("img", { src: url, alt: "The picture that was asked about" });
  const frame = el("div", { class: "picture" }, image, ...over);
  image.decode().then(() => {
    const scale = Math.min(MOST_WIDTH / image.naturalWidth, MOST_HEIGHT / image.naturalHeight);
    frame.style.width = `${Math.round(image.naturalWidth * scale)}px`;
    frame.style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight}`;
    frame.classList.toggle("enlarged", scale >= 2);
    for (const box of frame.querySelectorAll(".box")) placeBox(box, image);
  }, () => image.remove()); // what the server can read the browser may not
  return frame;
}

/** Return a canvas with a mask. png: base64 of 8 bits a pixel, the number of its class. clear: the class that is not painted, or none. */
export async function paintMask(canvas, png, clear) {
  const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }), { colorSpaceConversion: "none" });
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const colours = new Map();
  for (let place = 0; place < pixels.data.length; place += 4) {
    const index = pixels.data[place];
    if (!colours.has(index)) colours.set(index, index === clear ? [0, 0, 0, 0] : [...rgb(index), OPACITY]);
    pixels.data.set(index === UNKNOWN ? unknownAt(place / 4, canvas.width) : colours.get(index), place);
  }
  context.putImageData(pixels, 0, 0);
}

/** Return what is drawn where the network has not seen: stripes. */
function unknownAt(pixel, width) {
  const stripe = Math.max(2, Math.round(width / 80));
  const isDark = Math.floor(((pixel % width) + Math.floor(pixel / width)) / stripe) % 2;
  return isDark ? [40, 40, 40, 200] : [150, 150, 150, 200];
}

/** Return a box that `pictureWith` puts where it belongs. box: {label, score, box: [x1, y1, x2, y2]} in pixels of the picture. */
export function boxOver({ label, box }, colour) {
  const frame = el("div", { class: "box", "data-corners": box.join(" ") }, el("span", {}, label));
  frame.style.borderColor = css(colour);
  frame.firstChild.style.backgroundColor = css(colour);
  return frame;
}

function placeBox(frame, image) {
  const [x1, y1, x2, y2] = frame.dataset.corners.split(" ").map(Number);
  const part = (value, whole) => `${(100 * value) / whole}%`;
  frame.style.left = part(x1, image.naturalWidth);
  frame.style.top = part(y1, image.naturalHeight);
  frame.style.width = part(x2 - x1, image.naturalWidth);
  frame.style.height = part(y2 - y1, image.naturalHeight);
  frame.classList.toggle("top", y1 < 0.06 * image.naturalHeight); // its label goes inside
}
