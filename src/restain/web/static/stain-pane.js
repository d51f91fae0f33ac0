// One pane with an H&E image, its scale bar and keys, for the staining pages.

import { followPointer } from "./controls.js";
import { ScaleBar } from "./scale-bar.js";
import { Scene } from "./scene.js";
import { Shapes } from "./shapes.js";

const at = (id) => document.getElementById(id);

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

// Seconds as words, in the catalogue's language.
export function duration(seconds, texts) {
  if (seconds < 90) return fill(texts["stain.seconds"], { count: Math.max(1, Math.round(seconds)) });
  if (seconds < 5400) return fill(texts["stain.minutes"], { count: Math.round(seconds / 60) });
  return fill(texts["stain.hours"], { count: (seconds / 3600).toFixed(1) });
}

export function rectangle(x, y, width, height) {
  const ring = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]];
  return { geometry: { type: "Polygon", coordinates: [ring] }, id: null, classes: ["chosen"] };
}

export function showPane(data) {
  const state = {
    x: null, y: null, mpp: null, mode: "single", beside: null, dab: null, map: true, rotation: 0, brightness: 1, contrast: 1,
  };
  let pointer = null;
  const scaleBar = new ScaleBar(data, {
    bar: at("scale").querySelector("i"),
    length: at("scale").querySelector("b"),
    position: at("position"),
    screen: at("screen"),
    magnifications: [],
  });
  const scene = new Scene(
    data,
    state,
    {
      panes: [at("first")],
      failed() {
        at("message").textContent = data.texts["viewer.failed"];
        at("message").hidden = false;
      },
    },
    () => {
      scaleBar.show(state, pointer);
      document.body.dataset.ready = "1";
    },
  );
  const pane = scene.first;
  followPointer(scene, pane, (place) => {
    pointer = place;
    scaleBar.show(state, pointer);
  });
  return { scene, pane, shapes: new Shapes(pane, data.image.width) };
}
