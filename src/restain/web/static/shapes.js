// Annotations and outlines over a pane, in px of level 0; GeoJSON in and out.

const SVG = "http://www.w3.org/2000/svg";

function ringPath(ring, close) {
  return ring.map(([x, y], place) => `${place ? "L" : "M"}${x} ${y}`).join("") + (close ? "Z" : "");
}

export function geometryPath({ type, coordinates }) {
  switch (type) {
    case "Point":
      return `M${coordinates[0]} ${coordinates[1]}h0`;
    case "MultiPoint":
      return coordinates.map(([x, y]) => `M${x} ${y}h0`).join("");
    case "LineString":
      return ringPath(coordinates, false);
    case "MultiLineString":
      return coordinates.map((line) => ringPath(line, false)).join("");
    case "Polygon":
      return coordinates.map((ring) => ringPath(ring, true)).join("");
    default:
      return coordinates.flat().map((ring) => ringPath(ring, true)).join("");
  }
}

export function kindOf(geometry) {
  if (geometry.type.endsWith("Point")) return "point";
  if (geometry.type.endsWith("LineString")) return "line";
  if (geometry.type !== "Polygon" || geometry.coordinates.length !== 1) return "polygon";
  const ring = geometry.coordinates[0];
  const square = ring.length === 5 && new Set(ring.map((p) => p[0])).size === 2 && new Set(ring.map((p) => p[1])).size === 2;
  return square ? "rectangle" : "polygon";
}

// Whether a place lies within `reach` of a line.
export function nearLine({ type, coordinates }, x, y, reach) {
  const lines = type === "LineString" ? [coordinates] : coordinates;
  return lines.some((line) =>
    line.slice(1).some(([bx, by], place) => {
      const [ax, ay] = line[place];
      const [dx, dy] = [bx - ax, by - ay];
      const along = Math.min(1, Math.max(0, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1)));
      return Math.hypot(ax + along * dx - x, ay + along * dy - y) <= reach;
    }),
  );
}

export class Shapes {
  constructor(pane, width) {
    this.pane = pane;
    this.width = width;
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("class", "shapes");
    this.svg.setAttribute("aria-hidden", "true");
    this.group = this.svg.appendChild(document.createElementNS(SVG, "g"));
    pane.element.append(this.svg);
    for (const kind of ["viewport-change", "resize", "open", "rotate"]) pane.viewer.addHandler(kind, () => this.follow());
    pane.viewer.world.addHandler("add-item", () => this.follow());
  }

  follow() {
    const { viewport } = this.pane.viewer;
    const corner = viewport.pixelFromPoint(new window.OpenSeadragon.Point(0, 0), true);
    const edge = viewport.pixelFromPoint(new window.OpenSeadragon.Point(1, 0), true);
    const [across, down] = [(edge.x - corner.x) / this.width, (edge.y - corner.y) / this.width];
    if (!Number.isFinite(across + down)) return;
    this.group.setAttribute("transform", `matrix(${across} ${down} ${-down} ${across} ${corner.x} ${corner.y})`);
  }

  // `drawn`: a list of { geometry, id, classes }.
  draw(drawn) {
    const paths = drawn.flatMap(({ geometry, id, classes, colour }) =>
      [["halo"], []].map((halo) => {
        const path = document.createElementNS(SVG, "path");
        const dot = geometry.type.endsWith("Point") ? ["dot"] : [];
        path.setAttribute("d", geometryPath(geometry));
        path.setAttribute("class", [...halo, ...dot, ...(halo.length ? [] : classes)].join(" "));
        if (id && !halo.length) path.dataset.id = id;
        if (colour && !halo.length) path.style.stroke = `rgb(${colour.join(" ")})`;
        return path;
      }),
    );
    this.group.replaceChildren(...paths);
    this.follow();
  }

  // The topmost annotation at a place (px of level 0); `reach` is the tolerance for points.
  at(x, y, reach, features) {
    const point = new DOMPoint(x, y);
    for (const feature of [...features].reverse()) {
      const { geometry, id } = feature;
      if (geometry.type.endsWith("Point")) {
        const points = geometry.type === "Point" ? [geometry.coordinates] : geometry.coordinates;
        if (points.some(([px, py]) => Math.hypot(px - x, py - y) <= reach)) return id;
      } else {
        const path = this.group.querySelector(`path[data-id="${CSS.escape(id)}"]`);
        const line = geometry.type.endsWith("LineString");
        if (line ? nearLine(geometry, x, y, reach) : path?.isPointInFill(point)) return id;
      }
    }
    return null;
  }
}
