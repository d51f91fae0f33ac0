// One pane with an H&E image, its scale bar and keys, for the staining pages.

import { followPointer } from "./controls.js";
import { ScaleBar } from "./scale-bar.js";
import { Scene } from "./scene.js";
import { Shapes } from "./shapes.js";

const at = (id) => document.getElementById(id);

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
