// The panes: their images, their common movement, and the notice above a virtual stain.

const OSD = window.OpenSeadragon;
const TILE = 512;
// Longer side of the overview map in px.
const MAP = window.innerWidth < 600 ? 84 : 180;

// OpenSeadragon adds a style to the page unless it finds this mark; the content security policy forbids that.
// The rules are in style.css.
const mark = document.head.appendChild(document.createElementNS(null, "style"));
mark.setAttribute("data-openseadragon-mobile-css", "true");

function pyramid(size, url) {
  return { width: size.width, height: size.height, tileSize: TILE, minLevel: 0, maxLevel: size.top, getTileUrl: url };
}

function imageSource(layer) {
  const more = layer.fixed === null ? "" : `&fixed=${layer.fixed}`;
  return pyramid(layer, (level, x, y) => `api/images/${layer.id}/tiles/${level}/${x}/${y}.jpg?v=${layer.stamp}${more}`);
}

function densitySource(layer) {
  return pyramid(layer, (level, x, y) => `api/images/${layer.id}/density/${level}/${x}/${y}.png?v=${layer.stamp}`);
}

class Pane {
  constructor(element, map) {
    this.element = element;
    this.items = new Map();
    this.wanted = new Map();
    this.viewer = OSD({
      element,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: map !== null,
      navigatorPosition: "BOTTOM_RIGHT",
      navigatorWidth: `${map?.width ?? 0}px`,
      navigatorHeight: `${map?.height ?? 0}px`,
      navigatorAutoFade: false,
      navigatorOpacity: 1,
      navigatorBackground: "#fff",
      navigatorBorderColor: "#1c1e21",
      navigatorDisplayRegionColor: "#c2410c",
      preserveViewport: true,
      preserveImageSizeOnResize: true,
      visibilityRatio: 0,
      minZoomImageRatio: 0.4,
      maxZoomPixelRatio: 8,
      animationTime: 0.4,
      imageLoaderLimit: 6,
      maxImageCacheCount: 300,
      timeout: 120000,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsTouch: { dblTapToZoom: false },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: false },
    });
    this.viewer.addHandler("canvas-key", (event) => {
      event.preventDefaultAction = true;
    });
    this.strips = element.appendChild(document.createElement("div"));
    this.strips.className = "strips";
    this.corner = element.appendChild(document.createElement("div"));
    this.corner.className = "corner";
  }

  // Shows a layer in a slot, once.
  put(slot, key, source, ready) {
    if (this.wanted.get(slot) === key) return;
    this.wanted.set(slot, key);
    this.drop(slot);
    if (key === null) return;
    this.viewer.addTiledImage({
      tileSource: source,
      x: 0,
      y: 0,
      width: 1,
      opacity: 1,
      success: ({ item }) => {
        if (this.wanted.get(slot) !== key) {
          this.viewer.world.removeItem(item);
          return;
        }
        this.items.set(slot, item);
        const order = ["base", "over", "density"].filter((one) => this.items.has(one));
        order.forEach((one, place) => this.viewer.world.setItemIndex(this.items.get(one), place));
        ready();
      },
    });
  }

  drop(slot) {
    const item = this.items.get(slot);
    this.items.delete(slot);
    if (item) this.viewer.world.removeItem(item);
  }

  // `marked`: an overlay of a virtual stain is shown, whatever the images are.
  label(parts, notice, marked) {
    this.strips.replaceChildren(
      ...parts.map(({ text, virtual, share }) => {
        const strip = document.createElement("div");
        strip.className = virtual ? "strip virtual" : "strip";
        strip.style.width = `${share * 100}%`;
        if (share === 0) strip.hidden = true;
        strip.textContent = text;
        return strip;
      }),
    );
    const virtual = marked || parts.some((part) => part.virtual);
    this.element.classList.toggle("has-virtual", virtual);
    this.corner.hidden = !virtual;
    this.corner.textContent = notice;
  }
}

export class Scene {
  constructor(data, state, elements, changed) {
    this.data = data;
    this.state = state;
    this.unit = data.mpp ?? 1;
    this.extent = data.image.width * this.unit;
    this.elements = elements;
    this.changed = changed;
    // Before the viewers measure their panes.
    elements.panes.forEach((pane, place) => (pane.hidden = place >= this.shown.length));
    const longer = Math.max(data.image.width, data.image.height);
    const map = { width: (MAP * data.image.width) / longer, height: (MAP * data.image.height) / longer };
    this.all = elements.panes.map((pane, place) => new Pane(pane, place ? null : map));
    [this.first] = this.all;
    this.leader = this.first;
    this.placed = false;
    for (const pane of this.all) {
      pane.viewer.addHandler("viewport-change", () => this.moved(pane));
      pane.viewer.addHandler("resize", () => requestAnimationFrame(() => this.moved(pane)));
      pane.viewer.addHandler("tile-load-failed", () => this.elements.failed());
      for (const kind of ["pointerdown", "wheel", "pointerenter"]) {
        pane.element.addEventListener(kind, () => (this.leader = pane), { capture: true, passive: true });
      }
    }
    this.first.put("base", data.image.id, imageSource(data.image), () => this.place());
    this.show();
  }

  // The images of the panes, from the left.
  get shown() {
    const { mode } = this.state;
    const more = { side: [this.other], three: [this.other, this.third] }[mode] ?? [];
    return [this.data.image, ...more.filter(Boolean)];
  }

  get panes() {
    return this.all.slice(0, this.shown.length);
  }

  named(id) {
    return this.data.others.find((other) => other.id === id) ?? null;
  }

  get other() {
    return this.named(this.state.beside);
  }

  // The image of the third pane: the chosen one, else one of another kind than the second pane's.
  get third() {
    const left = this.data.others.filter(({ id }) => id !== this.state.beside);
    return left.find(({ id }) => id === this.state.third) ?? left.find(({ kind }) => kind !== this.other.kind) ?? left[0] ?? null;
  }

  // The stain whose overlays a pane draws: its own; over the H&E image that of the stain that is compared.
  stainOf(place) {
    return place ? this.shown[place] : this.other ?? this.data.image;
  }

  get stains() {
    return [...new Set(this.panes.map((_, place) => this.stainOf(place)))];
  }

  densityOf(stain) {
    return this.data.overlays[stain.id]?.density ?? null;
  }

  // The image whose outline is drawn over a stain, or null. Only tissue of the H&E image fits every stain.
  outlineOwner(which, stain) {
    const owners = which === "tissue" ? [stain, this.data.image] : [stain];
    return owners.find(({ id }) => this.data.overlays[id]?.outlines.includes(which)) ?? null;
  }

  // The images whose overlay is drawn somewhere; `which` is "dab", "tissue" or "ood".
  owners(which) {
    const found = this.stains.map((stain) => (which === "dab" ? this.densityOf(stain) && stain : this.outlineOwner(which, stain)));
    return [...new Set(found.filter(Boolean))];
  }

  place() {
    const { x, y, mpp } = this.state;
    if (x === null || y === null || mpp === null) this.first.viewer.viewport.goHome(true);
    else this.moveTo(x, y, mpp, true);
    this.placed = true;
    this.show();
    this.first.viewer.forceRedraw();
    this.moved(this.first);
  }

  // Update everything from the state.
  show() {
    const { mode, dab, rotation } = this.state;
    const { shown, other } = this;
    const restyle = () => this.restyle();
    this.all.forEach((pane, place) => {
      const layer = shown[place] ?? null;
      pane.element.hidden = layer === null;
      if (place) {
        pane.put("base", layer && layer.id, layer && imageSource(layer), () => {
          this.follow(this.first, pane);
          this.restyle();
        });
      }
      const density = layer && dab !== null ? this.densityOf(this.stainOf(place)) : null;
      pane.put("density", density && density.id, density && densitySource(density), restyle);
      if (pane.viewer.viewport && pane.viewer.viewport.getRotation() !== rotation) pane.viewer.viewport.setRotation(rotation, true);
    });
    const laid = mode === "curtain" || mode === "blend" ? other : null;
    this.first.put("over", laid && laid.id, laid && imageSource(laid), restyle);
    this.elements.stage?.style.setProperty("--panes", String(shown.length));
    if (this.elements.curtain) this.elements.curtain.hidden = mode !== "curtain";
    if (this.first.viewer.navigator) this.first.viewer.navigator.element.style.display = this.state.map ? "" : "none";
    this.restyle();
  }

  // Update opacity, clipping, colours and labels.
  restyle() {
    const { mode, split, blend, dab, brightness, contrast } = this.state;
    const { shown } = this;
    const over = this.first.items.get("over");
    if (over && mode === "curtain") this.clip(over);
    if (over && mode === "blend") {
      over.resetCroppingPolygons();
      over.setOpacity(blend);
    }
    if (this.elements.curtain) {
      this.elements.curtain.style.left = `${split * 100}%`;
      this.elements.curtain.setAttribute("aria-valuenow", String(Math.round(split * 100)));
    }
    const shares = { curtain: [split, 1 - split], blend: [0.5, 0.5] }[mode] ?? [1, 0];
    this.all.forEach((pane, place) => {
      pane.items.get("density")?.setOpacity(dab ?? 0);
      pane.viewer.canvas.style.filter = brightness === 1 && contrast === 1 ? "" : `brightness(${brightness}) contrast(${contrast})`;
      const parts = shown[place] ? [this.title(shown[place], place ? 1 : shares[0])] : [];
      if (!place && (mode === "curtain" || mode === "blend") && this.other) parts.push(this.title(this.other, shares[1]));
      const stain = shown[place] ? this.stainOf(place) : null;
      pane.label(parts, this.data.texts.notice, dab !== null && stain?.kind === "virtual" && this.densityOf(stain) !== null);
    });
  }

  title(layer, share) {
    const { texts } = this.data;
    const virtual = layer.kind === "virtual";
    const parts = [virtual ? texts.notice : texts[`kind.${layer.kind}`]];
    if (layer.synthetic) parts.push(texts.synthetic);
    parts.push(layer.name);
    if (layer.byName) parts.push(texts["compare.by_name"]);
    return { text: parts.join(" · "), virtual, share };
  }

  // Shows the part of an image right of the curtain, whatever the rotation.
  clip(item) {
    const { viewport } = this.first.viewer;
    const { x: width, y: height } = viewport.getContainerSize();
    const left = width * this.state.split;
    const corners = [[left, 0], [width, 0], [width, height], [left, height]];
    const across = this.other.width;
    item.setOpacity(left < width ? 1 : 0);
    item.setCroppingPolygons([
      corners.map(([x, y]) => {
        const place = viewport.pointFromPixel(new OSD.Point(x, y), true);
        return { x: place.x * across, y: place.y * across };
      }),
    ]);
  }

  moved(pane) {
    if (!this.placed) return;
    if (pane === this.leader) {
      for (const other of this.panes) if (other !== pane) this.follow(pane, other);
    }
    const over = this.first.items.get("over");
    if (over && this.state.mode === "curtain") this.clip(over);
    const view = this.view();
    if (view) {
      Object.assign(this.state, view);
      this.changed();
    }
  }

  follow(pane, other) {
    const from = pane.viewer.viewport;
    const to = other.viewer.viewport;
    const ratio = from.getContainerSize().x / Math.max(1, to.getContainerSize().x);
    const zoom = from.getZoom(true) * ratio;
    const centre = from.getCenter(true);
    if (Math.abs(to.getZoom(true) / zoom - 1) > 1e-9) to.zoomTo(zoom, null, true);
    const gap = to.getCenter(true).minus(centre);
    if (Math.hypot(gap.x, gap.y) > 1e-12) to.panTo(centre, true);
  }

  // The view of the first pane: its centre and the length of a screen px.
  view() {
    const { viewport } = this.first.viewer;
    const width = viewport.getContainerSize().x;
    if (!width) return null;
    const centre = viewport.getCenter(true);
    return { x: centre.x * this.extent, y: centre.y * this.extent, mpp: this.extent / (viewport.getZoom(true) * width) };
  }

  moveTo(x, y, mpp, immediately = false) {
    this.leader = this.first;
    const { viewport } = this.first.viewer;
    viewport.zoomTo(this.extent / (mpp * viewport.getContainerSize().x), null, immediately);
    viewport.panTo(new OSD.Point(x / this.extent, y / this.extent), immediately);
  }

  zoomTo(mpp) {
    this.leader = this.first;
    const { viewport } = this.first.viewer;
    viewport.zoomTo(this.extent / (mpp * viewport.getContainerSize().x));
  }

  zoomBy(factor) {
    this.leader = this.first;
    this.first.viewer.viewport.zoomBy(factor);
  }

  // In fractions of the pane.
  pan(x, y) {
    this.leader = this.first;
    const { viewport } = this.first.viewer;
    const bounds = viewport.getBounds();
    viewport.panBy(new OSD.Point(x * bounds.width, y * bounds.height).rotate(-this.state.rotation));
  }

  home() {
    this.leader = this.first;
    this.first.viewer.viewport.goHome();
  }
}
