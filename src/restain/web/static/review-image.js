// The image that is reviewed. Its address is a token, which reveals nothing.

import { lengthText, niceLength } from "./scale-bar.js";

const OSD = window.OpenSeadragon;
const TILE = 512;

// OpenSeadragon puts a style into the page, which the content security policy forbids, unless it finds this mark.
const mark = document.head.appendChild(document.createElementNS(null, "style"));
mark.setAttribute("data-openseadragon-mobile-css", "true");

export class ReviewImage {
  // `failed(address)`: a tile could not be loaded.
  constructor(element, data, elements, failed) {
    this.data = data;
    this.elements = elements;
    this.viewer = OSD({
      element,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: true,
      navigatorPosition: "TOP_RIGHT",
      navigatorSizeRatio: 0.16,
      navigatorAutoFade: false,
      navigatorBackground: "#fff",
      navigatorBorderColor: "#1c1e21",
      navigatorDisplayRegionColor: "#c2410c",
      preserveImageSizeOnResize: true,
      visibilityRatio: 0.2,
      minZoomImageRatio: 0.5,
      maxZoomPixelRatio: 8,
      animationTime: 0.4,
      imageLoaderLimit: 6,
      maxImageCacheCount: 300,
      timeout: 60000,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: false },
      gestureSettingsTouch: { dblTapToZoom: false },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: false },
    });
    this.viewer.addHandler("canvas-key", (event) => {
      event.preventDefaultAction = true;
    });
    this.viewer.addHandler("viewport-change", () => this.measure());
    this.viewer.addHandler("resize", () => requestAnimationFrame(() => this.measure()));
    this.viewer.addHandler("open", () => this.measure());
    this.viewer.addHandler("tile-load-failed", ({ tile }) => failed(tile.getUrl()));
  }

  show(token) {
    const { study, width, height, top } = this.data;
    this.viewer.open({
      width,
      height,
      tileSize: TILE,
      minLevel: 0,
      maxLevel: top,
      getTileUrl: (level, x, y) => `api/review/${study}/${token}/tiles/${level}/${x}/${y}.jpg`,
    });
  }

  // Request failed tiles again.
  reload() {
    this.viewer.world.resetItems();
    this.viewer.forceRedraw();
  }

  // µm, or px of the image, per px of the screen.
  get unitsPerPx() {
    const { viewport } = this.viewer;
    return (this.data.width * (this.data.mpp ?? 1)) / (viewport.getZoom(true) * viewport.getContainerSize().x);
  }

  measure() {
    const { mpp } = this.data;
    const unitsPerPx = this.unitsPerPx;
    if (!Number.isFinite(unitsPerPx)) return;
    const length = niceLength(140 * unitsPerPx);
    this.elements.bar.style.width = `${length / unitsPerPx}px`;
    this.elements.length.textContent = lengthText(length, mpp !== null);
    for (const button of this.elements.powers) {
      const close = Math.abs((unitsPerPx * Number(button.dataset.power)) / 10 - 1) < 0.02;
      button.setAttribute("aria-pressed", String(close));
    }
  }

  magnify(power) {
    const { viewport } = this.viewer;
    viewport.zoomTo((this.data.width * this.data.mpp * power) / (10 * viewport.getContainerSize().x));
    viewport.applyConstraints();
  }

  zoomBy(factor) {
    this.viewer.viewport.zoomBy(factor).applyConstraints();
  }

  // In fractions of the pane.
  pan(x, y) {
    const { viewport } = this.viewer;
    const bounds = viewport.getBounds();
    viewport.panBy(new OSD.Point(x * bounds.width, y * bounds.height)).applyConstraints();
  }

  home() {
    this.viewer.viewport.goHome();
  }
}
