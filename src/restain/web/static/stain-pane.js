// One pane with an H&E image, its scale and its keys, for the pages of staining.

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
  pane.element.addEventListener("pointermove", (event) => {
    const box = pane.element.getBoundingClientRect();
    const pixel = new window.OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top);
    const world = pane.viewer.viewport.pointFromPixel(pixel, true);
    pointer = { x: world.x * scene.extent, y: world.y * scene.extent };
    readings.show(state, pointer);
  });
  pane.element.addEventListener("pointerleave", () => {
    pointer = null;
    readings.show(state, pointer);
  });
  return { scene, pane, shapes: new Shapes(pane, data.image.width) };
}

export function listenToKeys(scene, more = {}) {
  const keys = {
    "+": () => scene.zoomBy(1.5),
    "=": () => scene.zoomBy(1.5),
    "-": () => scene.zoomBy(1 / 1.5),
    "0": () => scene.home(),
    ArrowLeft: () => scene.pan(-0.2, 0),
    ArrowRight: () => scene.pan(0.2, 0),
    ArrowUp: () => scene.pan(0, -0.2),
    ArrowDown: () => scene.pan(0, 0.2),
    ...more,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const { target } = event;
    if (target.matches("input, select, textarea, summary")) return;
    if (target.matches("button, a") && [" ", "Enter"].includes(event.key)) return;
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
