// A colour for each class: the same for the same number.

const FIRST = ["#4477aa", "#cc6677", "#117733", "#ddaa33", "#882255", "#44aa99", "#aa4499", "#88ccee"];

/** Return [red, green, blue] of a class: Paul Tol's colours, then hues a golden angle apart. */
export function rgb(index) {
  if (index < FIRST.length) return [1, 3, 5].map((place) => parseInt(FIRST[index].slice(place, place + 2), 16));
  const [hue, saturation, lightness] = [(index * 137.5) % 360, 0.6, 0.5];
  const strength = saturation * Math.min(lightness, 1 - lightness);
  return [0, 8, 4].map((offset) => {
    const place = (offset + hue / 30) % 12;
    return Math.round(255 * (lightness - strength * Math.max(-1, Math.min(place - 3, 9 - place, 1))));
  });
}

export const css = (index) => `rgb(${rgb(index).join(" ")})`;

/** Return the number of each name, in the order in which they are first seen. */
export function numbered(names) {
  return new Map([...new Set(names)].map((name, number) => [name, number]));
}
