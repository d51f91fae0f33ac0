// A new job: region, drawn or typed, model and options.

import { listenToKeys } from "./controls.js";
import { showPane } from "./stain-pane.js";

const at = (id) => document.getElementById(id);
const data = JSON.parse(at("view-data").textContent);
const { texts, image } = data;
const unit = data.mpp ?? 1;
const SIDES = ["left", "top", "width", "height"];
const { scene, pane, shapes } = showPane(data);
let drawing = false;
let corner = null;

const inRegion = () => document.querySelector("[name=extent]:checked").value === "region";
const numbers = () => SIDES.map((side) => at(side).valueAsNumber / unit);

function show() {
  at("region-fields").hidden = !inRegion();
  for (const side of SIDES) at(side).required = inRegion();
  const [x, y, width, height] = numbers();
  const drawn = [];
  if (inRegion() && width > 0 && height > 0 && Number.isFinite(x + y)) {
    const ring = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]];
    drawn.push({ geometry: { type: "Polygon", coordinates: [ring] }, id: null, classes: ["chosen"] });
  }
  if (corner && drawing) drawn.push({ geometry: { type: "Point", coordinates: corner }, id: null, classes: ["draft"] });
  shapes.draw(drawn);
}

function draw(on) {
  drawing = on;
  corner = null;
  at("draw").setAttribute("aria-pressed", String(on));
  at("crosshair").hidden = at("draw-hint").hidden = !on;
  pane.element.classList.toggle("drawing", on);
  if (on) {
    document.querySelector("[name=extent][value=region]").checked = true;
    at("panes").focus({ preventScroll: true });
  }
  show();
}

function placeOf(pixel) {
  const world = pane.viewer.viewport.pointFromPixel(pixel, true);
  const inside = (value, most) => Math.min(Math.max(value, 0), most);
  return [inside(world.x * image.width, image.width), inside(world.y * image.width, image.height)];
}

function span(from, to) {
  const [x, y] = [0, 1].map((axis) => Math.min(from[axis], to[axis]));
  const [width, height] = [0, 1].map((axis) => Math.abs(from[axis] - to[axis]));
  [x, y, width, height].forEach((value, place) => (at(SIDES[place]).value = Number((value * unit).toFixed(2))));
  show();
}

pane.viewer.addHandler("canvas-press", (event) => {
  if (drawing) corner = placeOf(event.position);
});
pane.viewer.addHandler("canvas-drag", (event) => {
  if (!drawing || !corner) return;
  event.preventDefaultAction = true;
  span(corner, placeOf(event.position));
});
pane.viewer.addHandler("canvas-drag-end", (event) => {
  if (!drawing || !corner) return;
  event.preventDefaultAction = true;
  const to = placeOf(event.position);
  if (Math.abs(to[0] - corner[0]) > 2 && Math.abs(to[1] - corner[1]) > 2) {
    span(corner, to);
    draw(false);
  }
});

listenToKeys(scene, {
  r: () => draw(!drawing),
  Escape: () => draw(false),
  " ": () => {
    if (!drawing) return;
    const size = pane.viewer.viewport.getContainerSize();
    const place = placeOf(new window.OpenSeadragon.Point(size.x / 2, size.y / 2));
    if (corner) {
      span(corner, place);
      draw(false);
    } else {
      corner = place;
      show();
    }
  },
});

at("draw").addEventListener("click", () => draw(!drawing));
for (const choice of document.querySelectorAll("[name=extent]")) choice.addEventListener("change", show);
for (const side of SIDES) at(side).addEventListener("input", show);
at("model").addEventListener("change", () => (at("about").textContent = at("model").selectedOptions[0].dataset.about));

function refuse(sentence) {
  at("refused").textContent = sentence;
  at("refused").hidden = !sentence;
  at("start").disabled = false;
}

at("tools").addEventListener("submit", async (event) => {
  event.preventDefault();
  refuse("");
  at("start").disabled = true;
  const [x, y, width, height] = numbers();
  const form = {
    image: image.id,
    model: at("model").value,
    region: inRegion() ? { x, y, width, height } : null,
    mpp: at("mpp") ? at("mpp").valueAsNumber : null,
    dab: at("dab").checked,
    everywhere: at("everywhere").checked,
  };
  try {
    const body = JSON.stringify(form);
    const answer = await fetch("api/stain/jobs", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    const content = await answer.json();
    if (answer.ok) location.assign(`stain/${content.id}`);
    else refuse(content.error);
  } catch {
    refuse(texts["error.offline"]);
  }
});

// After the browser's back button, the page is as before.
addEventListener("pageshow", () => (at("start").disabled = false));
show();
// Before this script runs, the browser would submit the form itself.
at("start").disabled = false;
