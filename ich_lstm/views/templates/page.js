"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const count = data.positions.length;
  const page = byId("page"), stage = byId("stage"), slider = byId("slider"), plot = byId("plot");
  const thumbs = [...document.querySelectorAll(".thumb")];
  const rows = [...document.querySelectorAll(".row")];
  const context = byId("canvas").getContext("2d");
  const state = { slice: data.first, label: "any" };

  page.classList.remove("plain");

  function drawSlice() {
    const wanted = state.slice, image = thumbs[wanted].querySelector("img");
    const draw = () => { if (state.slice === wanted) context.drawImage(image, 0, 0, context.canvas.width, context.canvas.height); };
    if (image.complete && image.naturalWidth) draw(); else image.addEventListener("load", draw, { once: true });
  }

  function showSlice() {
    const i = state.slice;
    drawSlice();
    byId("which").textContent = `${i + 1} of ${count}`;
    byId("where").textContent = data.millimetres[i];
    byId("this-slice").textContent = `Slice ${i + 1}`;
    slider.value = i + 1;
    slider.setAttribute("aria-valuetext", `Slice ${i + 1} of ${count}, ${data.millimetres[i]}, any hemorrhage ${data.texts[i][data.labels.indexOf("any")]}`);
    byId("previous").disabled = i === 0;
    byId("next").disabled = i === count - 1;
    rows.forEach((row) => {
      const k = data.labels.indexOf(row.dataset.label), cell = row.querySelector(".slice");
      cell.querySelector("i").style.setProperty("--p", data.probabilities[i][k]);
      cell.querySelector("b").textContent = data.texts[i][k];
    });
    thumbs.forEach((thumb, j) => {
      if (j === i) thumb.setAttribute("aria-current", "true"); else thumb.removeAttribute("aria-current");
      thumb.tabIndex = j === i ? 0 : -1;
    });
    showCursor();
  }

  function showCursor() {
    const i = state.slice, k = data.labels.indexOf(state.label);
    byId("cursor").style.left = `${100 * data.positions[i]}%`;
    byId("cursor").style.setProperty("--p", data.probabilities[i][k]);
    describe(i);
  }

  function describe(i) {
    const k = data.labels.indexOf(state.label);
    byId("readout").textContent = `slice ${i + 1}, ${data.millimetres[i]}: ${data.texts[i][k]}`;
  }

  function showLabel() {
    const k = data.labels.indexOf(state.label);
    rows.forEach((row) => row.setAttribute("aria-pressed", String(row.dataset.label === state.label)));
    document.querySelectorAll("[data-curve]").forEach((line) => {
      const chosen = line.dataset.curve === state.label;
      line.classList.toggle("chosen", chosen);
      if (chosen) byId("area").setAttribute("points", `0,100 ${line.getAttribute("points")} 100,100`);
    });
    byId("curve-title").textContent = byId("grid-label").textContent = data.names[state.label];
    thumbs.forEach((thumb, i) => {
      thumb.querySelector(".bar > i").style.setProperty("--p", data.probabilities[i][k]);
      thumb.querySelector("b").textContent = data.texts[i][k];
    });
    showCursor();
  }

  function select(i, keepFocus = true) {
    const slice = Math.min(count - 1, Math.max(0, i));
    if (slice === state.slice) return;
    state.slice = slice;
    showSlice();
    // Keys pressed in the grid walk through the grid.
    if (keepFocus && document.activeElement && document.activeElement.classList.contains("thumb")) thumbs[slice].focus();
  }

  function nearest(event) {
    const box = plot.getBoundingClientRect(), part = (event.clientX - box.left) / box.width;
    let best = 0;
    data.positions.forEach((position, i) => { if (Math.abs(position - part) < Math.abs(data.positions[best] - part)) best = i; });
    return best;
  }

  const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -5, PageDown: 5, Home: -Infinity, End: Infinity };
  document.addEventListener("keydown", (event) => {
    if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    // Left and right always move the slice; the others scroll the page unless the viewer has the focus.
    const inViewer = event.target.closest && event.target.closest(".viewer, .plot, .thumb");
    if (!inViewer && event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    event.preventDefault();
    select(state.slice + steps[event.key]);
  });
  slider.addEventListener("input", () => select(Number(slider.value) - 1));
  byId("previous").addEventListener("click", () => select(state.slice - 1));
  byId("next").addEventListener("click", () => select(state.slice + 1));

  let turned = 0;
  stage.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.deltaY === 0) return;
    event.preventDefault();
    // A notch of a wheel is about 100 pixels; a touchpad sends many small steps.
    turned += event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : 60 * event.deltaY;
    const step = Math.trunc(turned / 60);
    if (step === 0) return;
    turned = 0;
    select(state.slice + Math.sign(step));
  }, { passive: false });

  plot.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    plot.setPointerCapture(event.pointerId);
    select(nearest(event));
  });
  plot.addEventListener("pointermove", (event) => {
    const i = nearest(event);
    if (event.buttons & 1) select(i);
    byId("ghost").hidden = i === state.slice;
    byId("ghost").style.left = `${100 * data.positions[i]}%`;
    describe(i);
  });
  plot.addEventListener("pointerleave", () => { byId("ghost").hidden = true; describe(state.slice); });

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-slice]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    select(Number(link.dataset.slice), false);
  });
  rows.forEach((row) => row.addEventListener("click", () => { state.label = row.dataset.label; showLabel(); }));

  const asked = /^#slice-(\d+)$/.exec(location.hash);
  if (asked) state.slice = Math.min(count, Math.max(1, Number(asked[1]))) - 1;
  slider.disabled = count === 1;
  showSlice();
  showLabel();
})();
