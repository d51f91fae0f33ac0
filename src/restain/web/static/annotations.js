// The annotations of the image: stored by the server, drawn here.

import { kindOf } from "./shapes.js";

// QuPath's default classes and their colours.
export const CLASSES = {
  Tumor: [200, 0, 0],
  Stroma: [150, 200, 150],
  "Immune cells": [160, 90, 160],
  Necrosis: [50, 50, 50],
  Other: [255, 200, 0],
  "Region*": [0, 0, 180],
  "Ignore*": [180, 180, 180],
};

// A measured value as people read it.
export function valueText(key, value) {
  const unit = key.endsWith("%") ? " %" : key.includes("µm^2") ? " µm²" : key.includes("px^2") ? " px²" : key.includes("µm") ? " µm" : key.includes("px") ? " px" : "";
  if (unit === " µm²" && value >= 1e5) return `${(value / 1e6).toPrecision(3)} mm²`;
  if (unit === " µm" && value >= 1000) return `${(value / 1000).toPrecision(3)} mm`;
  return `${Number(value.toPrecision(3))}${unit}`;
}

export class Annotations {
  constructor(data, shapes, state, elements, say) {
    this.address = `api/images/${data.image.id}/annotations`;
    this.texts = data.texts;
    this.unit = data.mpp ?? 1;
    this.shapes = shapes;
    this.state = state;
    this.elements = elements;
    this.say = say;
    this.features = [];
    // Of each pane.
    this.outlines = [];
    this.version = 0;
    this.chosen = null;
    this.tool = null;
    this.draft = [];
    this.queue = Promise.resolve();
    // Values by the id of the annotation, and the stain that they are of.
    this.measured = {};
    this.stain = null;
  }

  // Measures all annotations anew, in `stain` (an id, or null).
  async measure(stain = this.stain) {
    this.stain = stain;
    const query = stain === null ? "" : `?stain=${stain}`;
    for (const end of ["csv", "geojson"]) this.elements.exports[end].href = `${this.address.replace("/annotations", `/measurements.${end}`)}${query}`;
    if (!this.features.length) return;
    try {
      const response = await fetch(`${this.address.replace("/annotations", "/measurements")}${query}`, { cache: "no-store" });
      if (!response.ok || this.stain !== stain) return;
      const { measurements } = await response.json();
      this.measured = Object.fromEntries(measurements.map(({ id, values }) => [id, values]));
      this.list();
    } catch {
      // The next change measures again.
    }
  }

  async load() {
    const answer = await this.request();
    if (answer) this.take(answer);
    this.elements.reload.hidden = true;
  }

  take(answer) {
    this.features = answer.features;
    this.version = answer.version;
    this.choose(this.features.some((one) => one.id === this.chosen) ? this.chosen : null);
    this.measure();
  }

  async request(options = {}) {
    try {
      const response = await fetch(this.address, { cache: "no-store", ...options });
      const content = await response.json();
      if (response.ok) return content;
      this.refused(content.error, response.status);
    } catch {
      this.refused(this.texts["error.offline"], 0);
    }
    return null;
  }

  refused(why, status) {
    const sentence = this.texts["viewer.not_saved"].replace("{why}", why);
    this.elements.saved.textContent = sentence;
    this.say(sentence);
    if (status === 409 || status === 400 || status === 413) this.elements.reload.hidden = false;
  }

  // One save at a time, each with the version from the save before.
  save() {
    this.elements.saved.textContent = this.texts["viewer.saving"];
    this.queue = this.queue.then(async () => {
      const body = JSON.stringify({ type: "FeatureCollection", version: this.version, features: this.features });
      const answer = await this.request({ method: "PUT", body, headers: { "Content-Type": "application/geo+json" } });
      if (!answer) return;
      this.version = answer.version;
      this.elements.saved.textContent = this.texts["viewer.saved"];
      this.measure();
    });
    return this.queue;
  }

  add(geometry) {
    const id = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
    this.features.push({ type: "Feature", id, geometry, properties: { objectType: "annotation" } });
    this.choose(id);
    this.save();
  }

  remove() {
    if (this.chosen === null) return;
    this.features = this.features.filter((one) => one.id !== this.chosen);
    this.choose(null);
    this.save();
  }

  rename(name) {
    const feature = this.features.find((one) => one.id === this.chosen);
    if (!feature) return;
    if (name) feature.properties.name = name;
    else delete feature.properties.name;
    this.list();
    this.save();
  }

  classify(name) {
    const feature = this.features.find((one) => one.id === this.chosen);
    if (!feature) return;
    if (name) feature.properties.classification = { name, color: CLASSES[name] };
    else delete feature.properties.classification;
    this.list();
    this.draw();
    this.save();
  }

  async read(file) {
    try {
      const content = JSON.parse(await file.text());
      const found = content.type === "Feature" ? [content] : (content.features ?? content);
      if (!Array.isArray(found)) throw new TypeError();
      const before = this.features;
      const ids = new Set(before.map((one) => one.id));
      this.features = [...before, ...found.map((one) => (ids.has(one?.id) ? { ...one, id: undefined } : one))];
      await this.queue;
      const body = JSON.stringify({ type: "FeatureCollection", version: this.version, features: this.features });
      this.features = before;
      const answer = await this.request({ method: "PUT", body, headers: { "Content-Type": "application/geo+json" } });
      if (!answer) return;
      this.take(answer);
      this.elements.saved.textContent = this.texts["viewer.saved"];
    } catch {
      this.say(this.texts["error.no_geojson"]);
    }
  }

  choose(id) {
    this.chosen = id;
    this.list();
    this.draw();
  }

  pick(tool) {
    this.tool = this.tool === tool ? null : tool;
    this.draft = [];
    this.elements.drawing(this.tool);
    this.draw();
  }

  // A click, or Space at the crosshair: a corner of a drawing, or a selection.
  place(x, y, reach) {
    const point = [Number(x.toFixed(2)), Number(y.toFixed(2))];
    if (this.tool === null) {
      this.choose(this.state.annotations ? this.shapes[0].at(x, y, reach, this.features) : null);
      return;
    }
    const [first] = this.draft;
    const near = first && Math.hypot(first[0] - x, first[1] - y) <= reach;
    if (this.tool === "polygon" && near && this.draft.length > 2) {
      this.finish();
      return;
    }
    this.draft.push(point);
    if (this.tool === "point") this.end({ type: "Point", coordinates: point });
    else if (this.tool === "line" && this.draft.length === 2) this.end({ type: "LineString", coordinates: this.draft });
    else if (this.tool === "rectangle" && this.draft.length === 2) {
      const [[left, top], [right, bottom]] = this.draft;
      if (left === right || top === bottom) this.draft.pop();
      else {
        const ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]];
        this.end({ type: "Polygon", coordinates: [ring] });
      }
    }
    this.draw();
  }

  finish() {
    if (this.tool === "polygon" && this.draft.length > 2) {
      this.end({ type: "Polygon", coordinates: [[...this.draft, this.draft[0]]] });
    }
  }

  end(geometry) {
    this.draft = [];
    this.tool = null;
    this.elements.drawing(null);
    this.add(geometry);
  }

  draw() {
    const drawn = [];
    if (this.state.annotations) {
      for (const { geometry, id, properties } of this.features) {
        const colour = properties.classification?.color ?? CLASSES[properties.classification?.name];
        drawn.push({ geometry, id, colour, classes: id === this.chosen ? ["chosen"] : [] });
      }
    }
    if (this.draft.length) {
      drawn.push({ geometry: { type: "LineString", coordinates: this.draft }, classes: ["draft"] });
      drawn.push({ geometry: { type: "MultiPoint", coordinates: this.draft }, classes: ["draft"] });
    }
    this.shapes.forEach((one, place) => one.draw([...(this.outlines[place] ?? []), ...drawn]));
  }

  name(feature, number) {
    const kind = this.texts[`viewer.${kindOf(feature.geometry)}`];
    const plain = this.texts["viewer.unnamed"].replace("{kind}", kind).replace("{number}", number);
    return feature.properties.name || feature.properties.classification?.name || plain;
  }

  list() {
    const { list, selected, name, kind, values } = this.elements;
    const rows = this.features.slice(0, 200).map((feature, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = this.name(feature, place + 1);
      button.setAttribute("aria-pressed", String(feature.id === this.chosen));
      button.addEventListener("click", () => {
        this.choose(feature.id);
        this.elements.visit(feature.geometry);
      });
      const row = document.createElement("tr");
      row.appendChild(document.createElement("th")).append(button);
      const own = Object.entries(this.measured[feature.id] ?? {});
      for (const wanted of [/^(Length|Area) /, /Positive area/]) {
        const [key, value] = own.find(([key]) => wanted.test(key)) ?? [];
        row.appendChild(document.createElement("td")).textContent = key ? valueText(key, value) : "";
      }
      return row;
    });
    if (!rows.length) {
      const row = document.createElement("tr");
      const cell = row.appendChild(document.createElement("td"));
      cell.className = "soft";
      cell.colSpan = 3;
      cell.textContent = this.texts["viewer.none"];
      rows.push(row);
    }
    list.replaceChildren(...rows);
    const feature = this.features.find((one) => one.id === this.chosen);
    selected.hidden = !feature;
    if (!feature) return;
    if (document.activeElement !== name) name.value = feature.properties.name ?? "";
    const own = feature.properties.classification?.name ?? "";
    if (own && ![...kind.options].some((option) => option.value === own)) kind.append(new Option(own, own));
    kind.value = own;
    values.replaceChildren(
      ...Object.entries(this.measured[feature.id] ?? {}).flatMap(([key, value]) => {
        const [term, text] = ["dt", "dd"].map((tag) => document.createElement(tag));
        term.textContent = key.replace(/ (%|µm\^2|µm|px\^2|px)$/, "");
        text.textContent = valueText(key, value);
        return [term, text];
      }),
    );
  }
}
