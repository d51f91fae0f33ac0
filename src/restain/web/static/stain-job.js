// A job: its finished tiles over the H&E, its progress and its result.

import { listenToKeys } from "./controls.js";
import { duration, rectangle, showPane } from "./stain-pane.js";

const at = (id) => document.getElementById(id);
const data = JSON.parse(at("view-data").textContent);
const { texts } = data;
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const address = `api/stain/jobs/${data.job.id}`;
const TILE = 512;
const view = data.image ? showPane(data) : null;
let job = data.job;
let over = null;
let loading = null;
let wanted = null;

const opacity = () => (at("shown").checked ? at("opacity").value / 100 : 0);

function source(size, url) {
  return { width: size.width, height: size.height, tileSize: TILE, minLevel: 0, maxLevel: size.top, getTileUrl: url };
}

function newest() {
  if (job.result) {
    const { id, stamp } = job.result;
    return { key: `result ${stamp}`, source: source(job.result, (level, x, y) => `api/images/${id}/tiles/${level}/${x}/${y}.jpg?v=${stamp}`) };
  }
  if (!job.partial?.there) return null;
  const { there } = job.partial;
  return { key: `partial ${there}`, source: source(job.partial, (level, x, y) => `${address}/tiles/${level}/${x}/${y}.webp?v=${there}`) };
}

// A newer layer replaces the older one once its tiles are loaded, to avoid flicker.
function lay() {
  if (!view) return;
  const next = newest();
  label(next !== null);
  if (!next || loading || wanted === next.key) return;
  loading = wanted = next.key;
  const { viewer } = view.pane;
  viewer.addTiledImage({
    tileSource: next.source,
    x: 0,
    y: 0,
    width: 1,
    opacity: opacity(),
    success({ item }) {
      const swap = () => {
        if (over) viewer.world.removeItem(over);
        over = item;
        loading = null;
        document.body.dataset.layer = next.key;
        lay();
      };
      if (item.getFullyLoaded()) swap();
      else item.addOnceHandler("fully-loaded-change", swap);
    },
    error() {
      loading = wanted = null;
    },
  });
}

function label(virtual) {
  const parts = [{ text: [texts[`kind.${data.image.kind}`], data.image.name].join(" · "), virtual: false, share: virtual ? 0.4 : 1 }];
  if (virtual) parts.push({ text: texts.notice, virtual: true, share: 0.6 });
  view.pane.label(parts, texts.notice, virtual);
}

function timeLeft(seconds) {
  return seconds === null ? "" : fill(texts["stain.seconds_left"], { time: duration(seconds, texts) });
}

function show() {
  const over = ["done", "failed", "cancelled"].includes(job.state);
  document.body.dataset.state = job.state;
  at("state").textContent = job.stateText;
  at("phase").textContent = job.phase;
  at("about").textContent = [job.about, job.owner].filter(Boolean).join(" · ");
  at("done").value = job.state === "done" ? 1000 : job.done;
  at("tiles-done").textContent = job.partial?.all ? fill(texts["stain.tiles"], job.partial) : "";
  at("time-left").textContent = job.state === "running" ? timeLeft(job.secondsLeft) : "";
  at("why").textContent = job.message;
  at("why").hidden = !job.message;
  at("why").className = job.state === "failed" ? "reason" : "small";
  at("cancel").hidden = over;
  at("resume").hidden = at("kept").hidden = !["failed", "cancelled"].includes(job.state);
  at("remove").hidden = !over;
  at("layer").hidden = !job.result && !job.partial?.there;
  at("taking").hidden = !job.files.length;
  if (job.view) at("open").href = job.view;
  for (const link of document.querySelectorAll("[data-file]")) link.hidden = !job.files.includes(link.dataset.file);
  at("care").hidden = !job.warnings.length;
  at("warnings").replaceChildren(
    ...job.warnings.map((sentence) => {
      const row = document.createElement("li");
      row.className = "reason";
      row.textContent = sentence;
      return row;
    }),
  );
  at("measured").hidden = !job.figures.length;
  at("figures").replaceChildren(
    ...job.figures.flatMap(([name, value]) =>
      [["dt", name], ["dd", value]].map(([kind, text]) => {
        const cell = document.createElement(kind);
        cell.textContent = text;
        return cell;
      }),
    ),
  );
  lay();
}

function refuse(sentence) {
  at("refused").textContent = sentence;
  at("refused").hidden = !sentence;
}

let waiting = 0;
async function refresh() {
  clearTimeout(waiting);
  try {
    const answer = await fetch(address, { cache: "no-store" });
    const content = await answer.json();
    at("message").hidden = true;
    if (answer.ok) {
      job = content;
      show();
    } else if (answer.status === 404) {
      location.assign("stain");
      return;
    }
  } catch {
    at("message").textContent = texts["stain.offline"];
    at("message").hidden = false;
  }
  // A job that is over may be resumed in another window.
  const often = { running: 700, waiting: 1500 }[job.state] ?? 5000;
  waiting = setTimeout(refresh, often);
}

async function send(path, method) {
  refuse("");
  try {
    const answer = await fetch(address + path, { method });
    if (!answer.ok) refuse((await answer.json()).error);
    return answer.ok;
  } catch {
    refuse(texts["error.offline"]);
    return false;
  } finally {
    if (method !== "DELETE") refresh();
  }
}

at("cancel").addEventListener("click", () => send("/cancel", "POST"));
at("resume").addEventListener("click", () => send("/resume", "POST"));
at("remove").addEventListener("click", () => {
  at("sure").returnValue = "keep";
  at("sure").showModal();
});
at("sure").addEventListener("close", async () => {
  if (at("sure").returnValue !== "delete") return;
  clearTimeout(waiting);
  if (await send("", "DELETE")) location.assign("stain");
  else refresh();
});
for (const id of ["shown", "opacity"]) at(id).addEventListener("input", () => over?.setOpacity(opacity()));
// After sleep, refresh at once.
document.addEventListener("visibilitychange", () => document.hidden || refresh());
addEventListener("online", refresh);
if (view) {
  listenToKeys(view.scene);
  if (job.region) view.shapes.draw([rectangle(...job.region)]);
}
show();
refresh();
