// The viewer page: panes, tools and keyboard.

import { readAddress, writeAddress } from "./address.js";
import { Annotations, CLASSES } from "./annotations.js";
import { followPointer, listenToKeys } from "./controls.js";
import { ScaleBar } from "./scale-bar.js";
import { Scene } from "./scene.js";
import { Shapes } from "./shapes.js";

const at = (id) => document.getElementById(id);
const data = JSON.parse(at("view-data").textContent);
const { texts } = data;
const state = readAddress(location.search, data.others);
const unit = data.mpp ?? 1;
let pointer = null;

let silence = 0;
function say(sentence) {
  at("message").textContent = sentence;
  at("message").hidden = false;
  clearTimeout(silence);
  silence = setTimeout(() => (at("message").hidden = true), 5000);
}

const scaleBar = new ScaleBar(data, {
  bar: at("scale").querySelector("i"),
  length: at("scale").querySelector("b"),
  position: at("position"),
  screen: at("screen"),
  magnifications: document.querySelectorAll("[data-power]"),
});

let writing = 0;
function changed() {
  scaleBar.show(state, pointer);
  clearTimeout(writing);
  writing = setTimeout(() => {
    history.replaceState(null, "", writeAddress(state));
    at("snapshot").href = snapshotAddress();
    document.body.dataset.ready = "1";
  }, 150);
}

const scene = new Scene(data, state, {
  panes: [...document.querySelectorAll(".pane")],
  stage: at("panes"),
  curtain: at("curtain"),
  failed: () => say(texts["viewer.failed"]),
}, changed);
const shapes = scene.all.map((pane) => new Shapes(pane, data.image.width));
const annotations = new Annotations(data, shapes, state, {
  list: at("features"),
  selected: at("selected"),
  name: at("feature-name"),
  kind: at("feature-class"),
  values: at("values"),
  exports: { csv: at("export-csv"), geojson: at("export-measured") },
  saved: at("saved"),
  reload: at("reload"),
  drawing(tool) {
    for (const button of document.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    }
    at("crosshair").hidden = at("draw-hint").hidden = tool === null;
    for (const pane of scene.all) pane.element.classList.toggle("drawing", tool !== null);
    if (tool !== null) at("panes").focus();
  },
  visit(geometry) {
    const points = geometry.coordinates.flat(Infinity);
    const [xs, ys] = [0, 1].map((odd) => points.filter((_, place) => place % 2 === odd));
    const middle = (values) => ((Math.min(...values) + Math.max(...values)) / 2) * unit;
    scene.moveTo(middle(xs), middle(ys), state.mpp);
  },
}, say);

function snapshotAddress() {
  const pane = at("first").getBoundingClientRect();
  const side = (length) => Math.max(16, Math.min(2048, Math.round(length)));
  const query = new URLSearchParams({
    x: state.x, y: state.y, mpp: state.mpp, width: side(pane.width), height: side(pane.height),
  });
  if (state.rotation) query.set("rotation", state.rotation);
  const beside = ["curtain", "blend"].includes(state.mode) ? [scene.other] : scene.shown.slice(1);
  for (const { id } of beside) query.append("beside", id);
  return `api/images/${data.image.id}/snapshot.png?${query}`;
}

// Features by "stain/outline"; null while they load.
const outlines = new Map();

async function loadOutline(key) {
  outlines.set(key, null);
  try {
    const response = await fetch(`api/images/${data.image.id}/outlines/${key}`);
    const content = await response.json();
    if (!response.ok) say(content.error);
    else outlines.set(key, content.features);
  } catch {
    outlines.delete(key);
    say(texts["error.offline"]);
    return;
  }
  showOutlines();
}

function showOutlines() {
  annotations.outlines = scene.panes.map((_, place) =>
    ["tissue", "ood"].flatMap((which) => {
      const owner = state[which] ? scene.outlineOwner(which, scene.stainOf(place)) : null;
      if (owner === null) return [];
      const key = `${owner.id}/${which}`;
      if (!outlines.has(key)) loadOutline(key);
      return (outlines.get(key) ?? []).map(({ geometry }) => ({ geometry, classes: [which] }));
    }),
  );
  annotations.draw();
}

// A control of an overlay: on, off, or disabled if no stain that is shown has one. The legend names the stains.
function showControl(id, on) {
  if (!at(id)) return;
  const owners = scene.owners(id);
  at(id).disabled = !owners.length;
  at(id).checked = on && owners.length > 0;
  at(`${id}-row`).hidden = !at(id).checked;
  at(`${id}-owner`).textContent = owners.map(({ name }) => texts["viewer.overlay_of"].replace("{name}", name)).join("; ");
}

// Update the tools and the panes from the state.
function update() {
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === state.mode));
  }
  if (at("beside")) {
    at("beside").value = state.beside;
    at("third-row").hidden = state.mode !== "three";
    at("third").value = scene.third?.id ?? "";
    for (const option of at("third").options) option.disabled = option.value === state.beside;
    at("blend-row").hidden = state.mode !== "blend";
    at("blend").value = Math.round(state.blend * 100);
  }
  for (const key of ["rotation", "brightness", "contrast"]) {
    at(key).value = key === "rotation" ? state[key] : Math.round(state[key] * 100);
    at(`${key}-value`).textContent = key === "rotation" ? `${state[key]}°` : `${at(key).value} %`;
  }
  showControl("dab", state.dab !== null);
  if (at("dab")) at("dab-opacity").value = Math.round((state.dab ?? 0.7) * 100);
  for (const which of ["tissue", "ood"]) showControl(which, state[which]);
  at("map").checked = state.map;
  at("annotations").checked = state.annotations;
  scene.show();
  showOutlines();
  measure();
  changed();
}

// Annotations are measured in the stain that is compared, or in the image itself if it is a stain.
function measure() {
  const stain = scene.other ?? (data.image.kind === "he" || data.image.kind === "picture" ? null : data.image);
  at("measured-in").textContent = stain ? texts["viewer.measured_in"].replace("{name}", stain.name) : "";
  if ((stain?.id ?? null) !== annotations.stain || !at("export-csv").href) annotations.measure(stain?.id ?? null);
}

function setMode(mode) {
  if (!data.others.length) return;
  state.mode = mode;
  update();
}

function shift(by) {
  const key = state.mode === "blend" ? "blend" : "split";
  state[key] = Math.min(1, Math.max(0, state[key] + by));
  update();
}

function next() {
  if (!data.others.length) return;
  const place = data.others.findIndex((other) => other.id === state.beside);
  state.beside = data.others[(place + 1) % data.others.length].id;
  update();
}

function turn(by) {
  state.rotation = (state.rotation + by + 360) % 360;
  update();
}

function toggle(key, on = true, off = false) {
  state[key] = state[key] === off ? on : off;
  update();
}

function magnify(power) {
  if (data.mpp !== null) scene.zoomTo(10 / power);
}

async function copyLink() {
  history.replaceState(null, "", writeAddress(state));
  try {
    await navigator.clipboard.writeText(location.href);
    say(texts["viewer.copied"]);
  } catch {
    say(texts["viewer.link_here"]);
  }
}

function placeAt(pane, pixel) {
  const world = pane.viewer.viewport.pointFromPixel(pixel, true);
  annotations.place(world.x * data.image.width, world.y * data.image.width, (10 * state.mpp) / unit);
}

for (const pane of scene.all) {
  pane.viewer.addHandler("canvas-click", (event) => {
    if (!event.quick) return;
    at("panes").focus({ preventScroll: true });
    placeAt(pane, event.position);
  });
  pane.viewer.addHandler("canvas-double-click", () => annotations.finish());
  followPointer(scene, pane, (place) => {
    pointer = place;
    scaleBar.show(state, pointer);
  });
}

listenToKeys(scene, {
  "1": () => magnify(5),
  "2": () => magnify(10),
  "3": () => magnify(20),
  "4": () => magnify(40),
  o: () => setMode("single"),
  s: () => setMode("side"),
  h: () => data.others.length > 1 && setMode("three"),
  ",": () => turn(-90),
  ".": () => turn(90),
  c: () => setMode("curtain"),
  b: () => setMode("blend"),
  n: next,
  "[": () => shift(-0.05),
  "]": () => shift(0.05),
  d: () => scene.owners("dab").length && toggle("dab", 0.7, null),
  t: () => scene.owners("tissue").length && toggle("tissue"),
  u: () => scene.owners("ood").length && toggle("ood"),
  m: () => toggle("map"),
  a: () => toggle("annotations"),
  p: () => annotations.pick("point"),
  k: () => annotations.pick("line"),
  r: () => annotations.pick("rectangle"),
  g: () => annotations.pick("polygon"),
  Enter: () => annotations.finish(),
  Escape: () => (annotations.tool === null ? annotations.choose(null) : annotations.pick(annotations.tool)),
  Delete: () => annotations.remove(),
  Backspace: () => annotations.remove(),
  e: () => at("snapshot").click(),
  l: copyLink,
  "?": () => at("keys").showModal(),
  " ": () => {
    if (annotations.tool === null) return;
    const size = scene.first.viewer.viewport.getContainerSize();
    placeAt(scene.first, new window.OpenSeadragon.Point(size.x / 2, size.y / 2));
  },
});

at("curtain").addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
  if (by === undefined) return;
  event.preventDefault();
  event.stopPropagation();
  shift(by);
});
at("curtain").addEventListener("pointerdown", (event) => {
  at("curtain").setPointerCapture(event.pointerId);
  event.preventDefault();
  at("curtain").focus();
});
at("curtain").addEventListener("pointermove", (event) => {
  if (!at("curtain").hasPointerCapture(event.pointerId)) return;
  const box = at("panes").getBoundingClientRect();
  state.split = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  update();
});

const on = (id, kind, action) => at(id)?.addEventListener(kind, action);
for (const button of document.querySelectorAll("[data-power]")) button.addEventListener("click", () => magnify(Number(button.dataset.power)));
for (const button of document.querySelectorAll("[data-mode]")) button.addEventListener("click", () => setMode(button.dataset.mode));
for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => annotations.pick(button.dataset.tool));
on("fit", "click", () => scene.home());
on("zoom-in", "click", () => scene.zoomBy(1.5));
on("zoom-out", "click", () => scene.zoomBy(1 / 1.5));
on("beside", "change", () => {
  state.beside = at("beside").value;
  update();
});
on("third", "change", () => {
  state.third = at("third").value;
  update();
});
for (const key of ["rotation", "brightness", "contrast"]) {
  on(key, "input", () => {
    state[key] = key === "rotation" ? Number(at(key).value) : at(key).value / 100;
    update();
  });
}
on("original", "click", () => {
  Object.assign(state, { rotation: 0, brightness: 1, contrast: 1 });
  update();
});
on("blend", "input", () => {
  state.blend = at("blend").value / 100;
  update();
});
on("dab", "change", () => toggle("dab", 0.7, null));
on("dab-opacity", "input", () => {
  state.dab = at("dab-opacity").value / 100;
  update();
});
on("tissue", "change", () => toggle("tissue"));
on("ood", "change", () => toggle("ood"));
on("map", "change", () => toggle("map"));
on("annotations", "change", () => toggle("annotations"));
on("feature-name", "change", () => annotations.rename(at("feature-name").value.trim()));
at("feature-class").append(...Object.keys(CLASSES).map((name) => new Option(name, name)));
on("feature-class", "change", () => annotations.classify(at("feature-class").value));
on("delete", "click", () => annotations.remove());
on("reload", "click", () => annotations.load());
on("file", "change", async () => {
  const [file] = at("file").files;
  if (file) await annotations.read(file);
  at("file").value = "";
});
on("link", "click", copyLink);
on("keys-button", "click", () => at("keys").showModal());
on("snapshot", "click", () => (at("snapshot").href = snapshotAddress()));
on("menu", "click", () => {
  const wide = document.querySelector(".stage").classList.toggle("wide");
  at("menu").setAttribute("aria-expanded", String(!wide));
});

if (at("legend")) {
  at("legend").append(
    ...data.dabColours.map(([least, [red, green, blue, alpha]]) => {
      const row = document.createElement("li");
      const swatch = row.appendChild(document.createElement("i"));
      swatch.style.background = `rgb(${red} ${green} ${blue} / ${alpha / 255})`;
      row.append(String(least));
      return row;
    }),
  );
}

window.restainView = { scene, state, annotations };
annotations.load();
update();
at("panes").focus({ preventScroll: true });
