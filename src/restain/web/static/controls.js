// Controls of every pane: the position of the pointer, and the keys that move the view.

// Calls `moved` with the place under the pointer in the scene's units, or null when it leaves.
export function followPointer(scene, pane, moved) {
  pane.element.addEventListener("pointermove", (event) => {
    const box = pane.element.getBoundingClientRect();
    const pixel = new window.OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top);
    const world = pane.viewer.viewport.pointFromPixel(pixel, true);
    moved({ x: world.x * scene.extent, y: world.y * scene.extent });
  });
  pane.element.addEventListener("pointerleave", () => moved(null));
}

// Keys of the view, and further keys of a page in `more`; text fields keep theirs.
export function listenToKeys(scene, more = {}) {
  const keys = {
    "+": () => scene.zoomBy(1.5),
    "=": () => scene.zoomBy(1.5),
    "-": () => scene.zoomBy(1 / 1.5),
    "0": () => scene.home(),
    ArrowLeft: () => scene.pan(-0.2, 0),
    ArrowRight: () => scene.pan(0.2, 0),
    ArrowUp: () => scene.pan(0, -0.2),
    ArrowDown: () => scene.pan(0, 0.2),
    ...more,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const { target } = event;
    if (target.matches("input:not([type=checkbox]), select, textarea")) return;
    if (target.matches("button, a, summary, input, label") && [" ", "Enter"].includes(event.key)) return;
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
