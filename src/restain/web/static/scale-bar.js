// Scale bar, position and magnification in the status line.

export function niceLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return Math.max(...[1, 2, 5].map((factor) => factor * power).filter((length) => length <= most * (1 + 1e-9)));
}

export function lengthText(length, calibrated) {
  if (!calibrated) return `${length} px`;
  if (length >= 1000) return `${length / 1000} mm`;
  return `${Number(length.toPrecision(6))} µm`;
}

export class ScaleBar {
  constructor(data, elements) {
    this.data = data;
    this.elements = elements;
  }

  show(state, pointer) {
    const { texts, mpp } = this.data;
    if (state.mpp === null) return;
    const unit = mpp === null ? texts["viewer.px"] : "µm";
    const length = niceLength(160 * state.mpp);
    this.elements.bar.style.width = `${length / state.mpp}px`;
    this.elements.length.textContent = lengthText(length, mpp !== null);
    const { x, y } = pointer ?? state;
    this.elements.position.textContent = `x ${x.toFixed(1)}, y ${y.toFixed(1)} ${unit}`;
    this.elements.screen.textContent = texts["viewer.screen"].replace("{mpp}", state.mpp.toPrecision(3)).replace("{unit}", unit);
    for (const button of this.elements.magnifications) {
      const wanted = 10 / Number(button.dataset.power);
      button.setAttribute("aria-pressed", String(mpp !== null && Math.abs(state.mpp / wanted - 1) < 0.02));
    }
  }
}
