// One pane with an H&E image, its scale and its keys, for the pages of staining.

import { followPointer } from "./controls.js";
import { Readings } from "./readings.js";
import { Scene } from "./scene.js";
import { Shapes } from "./shapes.js";

const at = (id) => document.getElementById(id);

export function showPane(data) {
  const state = {
    x: null, y: null, mpp: null, mode: "single", beside: null, split: 0.5, blend: 0.5, dab: null, tissue: false, map: true, annotations: true,
  };
  let pointer = null;
  const readings = new Readings(data, {
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
      first: at("first"),
      second: at("second"),
      panes: at("panes"),
      curtain: at("curtain"),
      failed() {
        at("message").textContent = data.texts["viewer.failed"];
        at("message").hidden = false;
      },
    },
    () => {
      readings.show(state, pointer);
      document.body.dataset.ready = "1";
    },
  );
  const pane = scene.first;
  followPointer(scene, pane, (place) => {
    pointer = place;
    readings.show(state, pointer);
  });
  return { scene, pane, shapes: new Shapes(pane, data.image.width) };
}
