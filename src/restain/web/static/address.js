// What the address bar holds: the exact view. Lengths are µm, or px where the slide has no mpp.

const MODES = ["single", "side", "curtain", "blend"];

function number(text, least, most) {
  const value = text === null || text === "" ? NaN : Number(text);
  return Number.isFinite(value) && value >= least && value <= most ? value : null;
}

export function readAddress(search, others) {
  const given = new URLSearchParams(search);
  const known = others.map((other) => other.id);
  const beside = known.includes(given.get("beside")) ? given.get("beside") : (known[0] ?? null);
  const asked = MODES.includes(given.get("mode")) ? given.get("mode") : "side";
  return {
    x: number(given.get("x"), -1e8, 1e8),
    y: number(given.get("y"), -1e8, 1e8),
    mpp: number(given.get("mpp"), 1e-4, 1e6),
    mode: beside === null ? "single" : asked,
    beside,
    split: number(given.get("split"), 0, 1) ?? 0.5,
    blend: number(given.get("blend"), 0, 1) ?? 0.5,
    dab: number(given.get("dab"), 0, 1),
    tissue: given.get("tissue") === "1",
    ood: given.get("ood") === "1",
    map: given.get("map") !== "0",
    annotations: given.get("annotations") !== "0",
  };
}

export function writeAddress(state) {
  const kept = new URLSearchParams();
  const put = (key, value) => kept.set(key, String(value));
  if (state.x !== null) {
    put("x", Number(state.x.toFixed(3)));
    put("y", Number(state.y.toFixed(3)));
    put("mpp", Number(state.mpp.toPrecision(7)));
  }
  put("mode", state.mode);
  if (state.beside !== null && state.mode !== "single") put("beside", state.beside);
  if (state.mode === "curtain") put("split", Number(state.split.toFixed(3)));
  if (state.mode === "blend") put("blend", Number(state.blend.toFixed(2)));
  if (state.dab !== null) put("dab", Number(state.dab.toFixed(2)));
  if (state.tissue) put("tissue", 1);
  if (state.ood) put("ood", 1);
  if (!state.map) put("map", 0);
  if (!state.annotations) put("annotations", 0);
  return `${location.pathname}?${kept}`;
}
