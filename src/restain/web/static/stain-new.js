// A new job: region, drawn or typed, model and options.

import { listenToKeys } from "./controls.js";
import { duration, rectangle, showPane } from "./stain-pane.js";

const at = (id) => document.getElementById(id);
const data = JSON.parse(at("view-data").textContent);
const { texts, image } = data;
// µm per px; 1 while it is unknown, and lengths are in px.
let unit = data.mpp ?? 1;
const SIDES = ["left", "top", "width", "height"];
const { scene, pane, shapes } = showPane(data);
const several = data.batch.length > 1;
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
    drawn.push(rectangle(x, y, width, height));
  }
  if (corner && drawing) drawn.push({ geometry: { type: "Point", coordinates: corner }, id: null, classes: ["draft"] });
  shapes.draw(drawn);
  at("unit").textContent = texts[mppOf(data.batch[0]) === null ? "stain.in_px" : "stain.in_um"];
  estimate();
}

const entered = () => (at("mpp")?.valueAsNumber > 0 ? at("mpp").valueAsNumber : null);
const mppOf = (one) => (one.id === image.id ? data.mpp : one.mpp) ?? entered();

// From the last job of the model: an upper limit, since glass takes no time.
function estimate() {
  const { rate, mpp } = data.models[at("model").value];
  const [, , width, height] = numbers();
  const seconds = data.batch.reduce((sum, one) => {
    const px = inRegion() ? width * height : one.px;
    return sum + (px * (mppOf(one) / mpp) ** 2 * rate) / 1e6;
  }, 0);
  const known = rate !== null && seconds > 0;
  const sentence = rate === null ? texts["stain.no_estimate"] : "";
  at("estimate").textContent = known ? texts["stain.estimate"].replace("{time}", duration(seconds, texts)) : sentence;
}

// The region stays where it is when the µm per px changes; its numbers follow.
function rescale() {
  const after = mppOf(data.batch[0]) ?? 1;
  const region = numbers();
  unit = after;
  region.forEach((value, place) => {
    if (Number.isFinite(value)) at(SIDES[place]).value = Number((value * unit).toFixed(2));
  });
  show();
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
at("mpp")?.addEventListener("input", rescale);
at("model").addEventListener("change", () => {
  at("about").textContent = at("model").selectedOptions[0].dataset.about;
  estimate();
});

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
    model: at("model").value,
    region: inRegion() ? { x, y, width, height } : null,
    mpp: entered(),
    dab: at("dab").checked,
    everywhere: at("everywhere").checked,
  };
  try {
    let content = null;
    // What was accepted is not sent again after a refusal.
    for (const one of data.batch.filter(({ job }) => !job)) {
      const body = JSON.stringify({ ...form, image: one.id });
      const answer = await fetch("api/stain/jobs", { method: "POST", body, headers: { "Content-Type": "application/json" } });
      content = await answer.json();
      if (!answer.ok) {
        refuse(content.error);
        return;
      }
      one.job = content.id;
    }
    location.assign(several ? "stain" : `stain/${content.id}`);
  } catch {
    refuse(texts["error.offline"]);
  }
});

// After the browser's back button, the page is as before.
addEventListener("pageshow", () => (at("start").disabled = false));
rescale();
// Before this script runs, the browser would submit the form itself.
at("start").disabled = false;
