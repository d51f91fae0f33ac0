// The exact view in the address bar. Lengths are in µm, or px if the mpp is unknown.

const MODES = ["single", "side", "three", "curtain", "blend"];

function number(text, least, most) {
  const value = text === null || text === "" ? NaN : Number(text);
  return Number.isFinite(value) && value >= least && value <= most ? value : null;
}

export function readAddress(search, others) {
  const query = new URLSearchParams(search);
  const known = others.map((other) => other.id);
  const named = (name) => (known.includes(query.get(name)) ? query.get(name) : null);
  const beside = named("beside") ?? known[0] ?? null;
  const asked = MODES.includes(query.get("mode")) ? query.get("mode") : "side";
  const mode = asked === "three" && known.length < 2 ? "side" : asked;
  // The overview would cover a pane of a phone.
  const map = query.get("map") ?? (window.innerWidth > 560 ? "1" : "0");
  return {
    x: number(query.get("x"), -1e8, 1e8),
    y: number(query.get("y"), -1e8, 1e8),
    mpp: number(query.get("mpp"), 1e-4, 1e6),
    mode: beside === null ? "single" : mode,
    beside,
    third: named("third"),
    rotation: number(query.get("rotation"), 0, 359.9) ?? 0,
    brightness: number(query.get("brightness"), 0.2, 3) ?? 1,
    contrast: number(query.get("contrast"), 0.2, 3) ?? 1,
    split: number(query.get("split"), 0, 1) ?? 0.5,
    blend: number(query.get("blend"), 0, 1) ?? 0.5,
    dab: number(query.get("dab"), 0, 1),
    tissue: query.get("tissue") === "1",
    ood: query.get("ood") === "1",
    map: map !== "0",
    annotations: query.get("annotations") !== "0",
  };
}

export function writeAddress(state) {
  const query = new URLSearchParams();
  const put = (key, value) => query.set(key, String(value));
  if (state.x !== null) {
    put("x", Number(state.x.toFixed(3)));
    put("y", Number(state.y.toFixed(3)));
    put("mpp", Number(state.mpp.toPrecision(7)));
  }
  put("mode", state.mode);
  if (state.beside !== null && state.mode !== "single") put("beside", state.beside);
  if (state.third !== null && state.mode === "three") put("third", state.third);
  if (state.rotation) put("rotation", state.rotation);
  for (const key of ["brightness", "contrast"]) if (state[key] !== 1) put(key, state[key]);
  if (state.mode === "curtain") put("split", Number(state.split.toFixed(3)));
  if (state.mode === "blend") put("blend", Number(state.blend.toFixed(2)));
  if (state.dab !== null) put("dab", Number(state.dab.toFixed(2)));
  if (state.tissue) put("tissue", 1);
  if (state.ood) put("ood", 1);
  put("map", state.map ? 1 : 0);
  if (!state.annotations) put("annotations", 0);
  return `${location.pathname}?${query}`;
}
