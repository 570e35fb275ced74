"use strict";
(() => {
  // Without it, HU cannot be decoded, so the page stays as it is without JavaScript.
  if (!window.DecompressionStream) return;

  const byId = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const data = JSON.parse(byId("data").textContent);
  const count = data.positions.length;
  const [fullRows, fullColumns] = data.shape, [rows, columns] = data.stored;
  const page = byId("page"), stage = byId("stage"), slider = byId("slider"), plot = byId("plot");
  const thumbs = all(".thumb"), results = all(".row");
  const context = byId("canvas").getContext("2d"), overlay = byId("overlay");
  const state = {
    slice: data.first, label: "any", hu: null, level: data.windows[0][0], width: data.windows[0][1],
    heat: new Set(data.heat ? data.heat.shown : []), heatShown: true, opacity: 0.55, maps: null,
  };
  const indexOf = (label) => data.labels.indexOf(label);

  page.classList.remove("plain");

  /* ---- unpacking: see encode_hu and encode_heat ---- */

  async function inflate(text) {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function unpack(i) {
    const bytes = await inflate(byId(`hu-${i}`).textContent);
    const size = rows * columns, hu = new Int16Array(size);
    for (let y = 0, at = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++, at++) {
        const folded = bytes[at] | (bytes[size + at] << 8);
        let expected = 0;
        if (y && x) expected = (hu[at - 1] + hu[at - columns]) >> 1;
        else if (x) expected = hu[at - 1];
        else if (y) expected = hu[at - columns];
        hu[at] = expected + ((folded >> 1) ^ -(folded & 1));
      }
    }
    return hu;
  }

  const KEPT = 24, unpacked = new Map();
  function huOf(i) {
    const found = unpacked.get(i) || unpack(i);
    unpacked.delete(i);
    unpacked.set(i, found);  // the last entry is the most recently used
    if (unpacked.size > KEPT) unpacked.delete(unpacked.keys().next().value);
    return found;
  }

  /* ---- the picture ---- */

  const greys = new Uint32Array(65536), image = context.createImageData(columns, rows), pixels = new Uint32Array(image.data.buffer);
  const rounded = new Uint8ClampedArray(1);

  // DICOM LINEAR_EXACT (PS3.3 C.11.2.1.3.2).
  function fillGreys() {
    const low = state.level - state.width / 2;
    for (let hu = -32768; hu < 32768; hu++) {
      rounded[0] = clamp((hu - low) / state.width, 0, 1) * 255;
      greys[hu + 32768] = 0xff000000 | (rounded[0] * 0x010101);
    }
  }

  function paint() {
    if (!state.hu) return;
    for (let at = 0; at < pixels.length; at++) pixels[at] = greys[state.hu[at] + 32768];
    context.putImageData(image, 0, 0);
  }

  async function showPicture() {
    const i = state.slice, blank = data.blanks[i];
    byId("blank").hidden = blank === undefined;
    byId("blank").textContent = blank || "";
    stage.setAttribute("aria-busy", "true");
    const hu = blank === undefined ? await huOf(i) : null;
    if (state.slice !== i) return;
    state.hu = hu;
    byId("canvas").style.visibility = hu ? "" : "hidden";
    paint();
    drawHeat();
    readOut();
    stage.setAttribute("aria-busy", "false");
  }

  let waiting = false;
  function setWindow(level, width) {
    state.level = clamp(Math.round(level), -1024, 3071);
    state.width = clamp(Math.round(width), 1, 4096);
    byId("window").textContent = `L ${state.level} W ${state.width}`;
    byId("level").value = state.level;
    byId("width").value = state.width;
    all("[data-window]").forEach((button) => {
      const [l, w] = data.windows[button.dataset.window];
      button.setAttribute("aria-pressed", String(l === state.level && w === state.width));
    });
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; fillGreys(); paint(); });
  }

  const pointer = { x: 0, y: 0, over: false };
  function readOut() {
    const box = byId("canvas").getBoundingClientRect();
    const x = Math.floor(((pointer.x - box.left) / box.width) * columns), y = Math.floor(((pointer.y - box.top) / box.height) * rows);
    const inside = pointer.over && state.hu && x >= 0 && y >= 0 && x < columns && y < rows;
    byId("hu").textContent = inside ? `${state.hu[y * columns + x]} HU`.replace("-", "\u2212") : "";
  }

  /* ---- heat maps ---- */

  const heat = data.heat, GRID = 256;
  const gridRows = Math.min(rows, GRID), gridColumns = Math.min(columns, GRID);
  const film = document.createElement("canvas");
  film.width = gridColumns; film.height = gridRows;

  // For each grid line: the two neighbouring cells of the map and the fraction between them; null outside the box.
  function between(cells, start, length, full, lines) {
    return Array.from({ length: lines }, (_, line) => {
      const at = ((line + 0.5) * full) / lines - start;
      if (at < 0 || at > length) return null;
      const place = clamp((at * cells) / length - 0.5, 0, cells - 1), low = Math.min(Math.floor(place), Math.max(0, cells - 2));
      return [low, Math.min(low + 1, cells - 1), place - low];
    });
  }
  const across = heat && between(heat.size[1], heat.box[1], heat.box[3], fullColumns, gridColumns);
  const down = heat && between(heat.size[0], heat.box[0], heat.box[2], fullRows, gridRows);

  function heatOn(i, k) {
    const [cellRows, cellColumns] = heat.size, values = new Float32Array(gridRows * gridColumns);
    const start = (i * heat.labels.length + k) * cellRows * cellColumns;
    down.forEach((row, y) => {
      if (!row) return;
      const [top, bottom, dy] = row, a = start + top * cellColumns, b = start + bottom * cellColumns;
      across.forEach((column, x) => {
        if (!column) return;
        const [left, right, dx] = column, maps = state.maps;
        const upper = maps[a + left] * (1 - dx) + maps[a + right] * dx, lower = maps[b + left] * (1 - dx) + maps[b + right] * dx;
        values[y * gridColumns + x] = upper * (1 - dy) + lower * dy;
      });
    });
    return values;
  }

  // Marching squares; the segments are joined to lines, because dashes need lines.
  function contours(values, level) {
    const value = (x, y) => (x < 0 || y < 0 || x >= gridColumns || y >= gridRows ? 0 : values[y * gridColumns + x]);
    const stride = gridColumns + 2, points = new Map(), next = new Map();
    const crossing = (x, y, isDown) => {
      const key = 2 * ((y + 1) * stride + x + 1) + isDown;
      if (!points.has(key)) {
        const a = value(x, y), b = isDown ? value(x, y + 1) : value(x + 1, y), part = (level - a) / (b - a);
        points.set(key, [x + 0.5 + (isDown ? 0 : part), y + 0.5 + (isDown ? part : 0)]);
      }
      return key;
    };
    const join = (a, b) => [[a, b], [b, a]].forEach(([from, to]) => { if (next.has(from)) next.get(from).push(to); else next.set(from, [to]); });
    for (let y = -1; y < gridRows; y++) {
      for (let x = -1; x < gridColumns; x++) {
        const corners = [value(x, y), value(x + 1, y), value(x + 1, y + 1), value(x, y + 1)].map((corner) => corner >= level);
        const cut = [];
        if (corners[0] !== corners[1]) cut.push(crossing(x, y, 0));
        if (corners[1] !== corners[2]) cut.push(crossing(x + 1, y, 1));
        if (corners[2] !== corners[3]) cut.push(crossing(x, y + 1, 0));
        if (corners[3] !== corners[0]) cut.push(crossing(x, y, 1));
        for (let at = 0; at < cut.length; at += 2) join(cut[at], cut[at + 1]);
      }
    }
    const lines = [];
    while (next.size) {
      const line = [];
      for (let key = next.keys().next().value; key !== undefined;) {
        line.push(points.get(key));
        const to = (next.get(key) || []).find((other) => next.has(other));
        next.delete(key);
        key = to;
      }
      lines.push(line);
    }
    return lines;
  }

  function drawHeat() {
    if (!heat) return;
    const box = byId("canvas").getBoundingClientRect(), scale = window.devicePixelRatio || 1;
    overlay.width = Math.round(box.width * scale);
    overlay.height = Math.round(box.height * scale);
    const shown = heat.labels.filter((label) => state.heat.has(label));
    noteHeat(shown);
    if (!state.heatShown || !state.maps || !state.hu) return;
    const pen = overlay.getContext("2d"), filmContext = film.getContext("2d");
    const values = shown.map((label) => heatOn(state.slice, heat.labels.indexOf(label)));
    const colors = shown.map((label) => [1, 3, 5].map((at) => parseInt(heat.colors[label].slice(at, at + 2), 16)));
    const light = filmContext.createImageData(gridColumns, gridRows);
    for (let at = 0; at < gridRows * gridColumns; at++) {
      let strongest = -1, most = 0;
      values.forEach((one, k) => { if (one[at] > most) { most = one[at]; strongest = k; } });
      if (strongest < 0) continue;
      light.data.set(colors[strongest], 4 * at);
      light.data[4 * at + 3] = most;
    }
    filmContext.putImageData(light, 0, 0);
    pen.globalAlpha = state.opacity;
    pen.drawImage(film, 0, 0, overlay.width, overlay.height);
    pen.globalAlpha = state.opacity > 0 ? 1 : 0;
    shown.forEach((label, k) => outline(pen, label, contours(values[k], heat.contour * 255), scale));
    shown.forEach((label) => mark(pen, label, scale));
  }

  const BEHIND = "rgba(0, 0, 0, 0.55)";
  function stroke(pen, color, width, dash, scale) {
    pen.lineJoin = "round";
    pen.setLineDash([]);
    pen.strokeStyle = BEHIND; pen.lineWidth = (width + 2) * scale; pen.stroke();
    pen.setLineDash(dash.map((part) => part * scale));
    pen.strokeStyle = color; pen.lineWidth = width * scale; pen.stroke();
    pen.setLineDash([]);
  }

  function outline(pen, label, lines, scale) {
    const wide = overlay.width / gridColumns, high = overlay.height / gridRows;
    lines.forEach((line) => {
      pen.beginPath();
      line.forEach(([x, y], at) => (at ? pen.lineTo(x * wide, y * high) : pen.moveTo(x * wide, y * high)));
      pen.closePath();
      stroke(pen, heat.colors[label], 1.75, heat.dashes[label], scale);
    });
  }

  const peakOf = (label) => heat.peaks[heat.labels.indexOf(label)][state.slice];
  function mark(pen, label, scale) {
    const [fullX, fullY, share] = peakOf(label);
    if (share < heat.contour) return;
    const arm = 6 * scale, margin = 14 * scale;
    const x = clamp((fullX / fullColumns) * overlay.width, margin, overlay.width - margin);
    const y = clamp((fullY / fullRows) * overlay.height, margin, overlay.height - margin);
    pen.beginPath();
    pen.moveTo(x - arm, y); pen.lineTo(x + arm, y); pen.moveTo(x, y - arm); pen.lineTo(x, y + arm);
    stroke(pen, heat.colors[label], 2, [], scale);
    pen.font = `600 ${14 * scale}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    // Text is drawn towards the middle, where there is room; two labels at the same place are drawn one below the other.
    const above = heat.labels.slice(0, heat.labels.indexOf(label)).filter((other) => state.heat.has(other) && near(other, label)).length;
    pen.textAlign = x > overlay.width / 2 ? "right" : "left";
    const at = [x + (x > overlay.width / 2 ? -1.6 : 1.6) * arm, y + 17 * scale * above];
    pen.lineWidth = 4 * scale; pen.strokeStyle = BEHIND; pen.lineJoin = "round";
    pen.strokeText(data.short[label], ...at);
    pen.fillStyle = heat.colors[label];
    pen.fillText(data.short[label], ...at);
  }
  function near(a, b) {
    const [p, q] = [peakOf(a), peakOf(b)];
    return p[2] >= heat.contour && Math.abs(p[1] - q[1]) / fullRows < 0.04 && Math.abs(p[0] - q[0]) / fullColumns < 0.16;
  }

  function noteHeat(shown) {
    const note = byId("heat-note");
    note.classList.remove("outside");
    if (data.blanks[state.slice] !== undefined) { note.textContent = ""; return; }
    if (!state.heatShown) { note.textContent = "Heat maps are hidden."; return; }
    if (!shown.length) { note.textContent = heat.shown.length ? "No heat map is chosen." : "No label is positive, so no heat map is shown. Choose one above."; return; }
    const texts = shown.map((label) => {
      const [, , share, outside] = peakOf(label);
      const strength = `${data.short[label]} ${Math.round(100 * share)}\u00a0%`;
      if (!outside || share < heat.contour) return strength;
      note.classList.add("outside");
      return `${strength} (peak outside the skull)`;
    });
    note.textContent = `Peak in this slice, relative to the peak in the scan: ${texts.join("; ")}.`;
  }

  function showHeatButtons() {
    all("[data-heat]").forEach((button) => button.setAttribute("aria-pressed", String(state.heat.has(button.dataset.heat))));
    byId("heat-shown").setAttribute("aria-pressed", String(state.heatShown));
    drawHeat();
  }

  /* ---- slices ---- */

  let before = 0;
  function showSlice() {
    const i = state.slice;
    showPicture();
    byId("which").textContent = `${i + 1} of ${count}`;
    byId("where").textContent = data.millimetres[i];
    byId("this-slice").textContent = `Slice ${i + 1}`;
    slider.value = i + 1;
    slider.setAttribute("aria-valuetext", `Slice ${i + 1} of ${count}, ${data.millimetres[i]}, any hemorrhage ${data.texts[i][indexOf("any")]}`);
    byId("previous").disabled = i === 0;
    byId("next").disabled = i === count - 1;
    results.forEach((row) => {
      const k = indexOf(row.dataset.label), cell = row.querySelector(".slice");
      cell.querySelector("i").style.setProperty("--p", data.probabilities[i][k]);
      cell.querySelector("b").textContent = data.texts[i][k];
    });
    thumbs[before].removeAttribute("aria-current");
    thumbs[before].tabIndex = -1;
    thumbs[i].setAttribute("aria-current", "true");
    thumbs[i].tabIndex = 0;
    before = i;
    all(".keys a").forEach((key) => { if (Number(key.dataset.slice) === i) key.setAttribute("aria-current", "true"); else key.removeAttribute("aria-current"); });
    showCursor();
  }

  function showCursor() {
    const i = state.slice, k = indexOf(state.label), left = `${100 * data.positions[i]}%`;
    byId("cursor").style.left = byId("dot").style.left = left;
    byId("dot").style.setProperty("--p", data.probabilities[i][k]);
    plot.setAttribute("aria-valuenow", i + 1);
    plot.setAttribute("aria-valuetext", `Slice ${i + 1}, ${data.millimetres[i]}, ${data.names[state.label]} ${data.texts[i][k]}`);
    describe(i);
  }

  function describe(i) {
    byId("readout").textContent = `slice ${i + 1}, ${data.millimetres[i]}: ${data.texts[i][indexOf(state.label)]}`;
  }

  function showLabel() {
    const k = indexOf(state.label);
    results.forEach((row) => row.setAttribute("aria-pressed", String(row.dataset.label === state.label)));
    all("[data-curve]").forEach((line) => {
      const chosen = line.dataset.curve === state.label;
      line.classList.toggle("chosen", chosen);
      if (chosen) byId("area").setAttribute("points", `0,100 ${line.getAttribute("points")} 100,100`);
    });
    byId("curve-title").textContent = byId("grid-label").textContent = data.names[state.label];
    if (heat) {
      const note = byId("adds-note");
      note.textContent = "of this label there are none";
      all("[data-adds]").forEach((bars) => {
        const chosen = bars.dataset.adds === state.label;
        bars.classList.toggle("chosen", chosen);
        if (chosen) note.textContent = `the longest is ${bars.dataset.largest}`;
      });
    }
    thumbs.forEach((thumb, i) => {
      thumb.querySelector(".bar > i").style.setProperty("--p", data.probabilities[i][k]);
      thumb.querySelector("b").textContent = data.texts[i][k];
    });
    showCursor();
  }

  function select(i, keepFocus = true) {
    const slice = clamp(i, 0, count - 1);
    if (slice === state.slice) return;
    state.slice = slice;
    showSlice();
    // Keys pressed in the grid move the focus within the grid.
    if (keepFocus && document.activeElement && document.activeElement.classList.contains("thumb")) thumbs[slice].focus();
  }

  /* ---- keys ---- */

  const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -5, PageDown: 5, Home: -Infinity, End: Infinity };
  const letters = {
    0: () => setWindow(...data.windows[0]), 1: () => setWindow(...data.windows[0]), 2: () => setWindow(...data.windows[1]),
    3: () => setWindow(...data.windows[2]), h: () => { if (heat) { state.heatShown = !state.heatShown; showHeatButtons(); } },
  };
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.target.closest && event.target.closest("input[type=number], #opacity")) return;
    const letter = letters[event.key.toLowerCase()];
    if (letter) { event.preventDefault(); letter(); return; }
    if (!(event.key in steps)) return;
    // Left and right always change the slice; the other keys scroll the page unless the viewer has the focus.
    const inViewer = event.target.closest && event.target.closest(".viewer, .plot, .thumb");
    if (!inViewer && event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    event.preventDefault();
    // On a slider, up increases the value; in a stack and on a page, down advances.
    const onSlider = event.target.closest && event.target.closest("[type=range], [role=slider]");
    const turns = onSlider && /^(ArrowUp|ArrowDown|PageUp|PageDown)$/.test(event.key);
    select(state.slice + (turns ? -1 : 1) * steps[event.key]);
  });
  slider.addEventListener("input", () => select(Number(slider.value) - 1));
  byId("previous").addEventListener("click", () => select(state.slice - 1));
  byId("next").addEventListener("click", () => select(state.slice + 1));

  /* ---- the picture under wheel, mouse and finger ---- */

  let turned = 0;
  stage.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.deltaY === 0) return;
    event.preventDefault();
    // One notch of a wheel is about 100 pixels; a touchpad sends many small steps.
    turned += event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY : 60 * event.deltaY;
    const step = Math.trunc(turned / 60);
    if (step === 0) return;
    turned = 0;
    select(state.slice + Math.sign(step));
  }, { passive: false });

  let drag = null;
  const fingers = new Set();
  stage.addEventListener("pointerdown", (event) => {
    const isTouch = event.pointerType === "touch";
    if (isTouch) fingers.add(event.pointerId);
    // The browser handles gestures with two fingers, which zoom.
    if (fingers.size > 1) { drag = null; return; }
    if (event.button !== 0) return;
    drag = { isTouch, x: event.clientX, y: event.clientY, slice: state.slice, level: state.level, width: state.width };
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "touch") { Object.assign(pointer, { x: event.clientX, y: event.clientY, over: true }); readOut(); }
    if (!drag) return;
    const right = event.clientX - drag.x, lower = event.clientY - drag.y;
    if (drag.isTouch) {
      // The height of the picture corresponds to the whole stack, within 8 to 28 pixels per slice.
      select(drag.slice - Math.round(lower / clamp(stage.clientHeight / count, 8, 28)));
      return;
    }
    // One HU per pixel in the brain window, more in wide windows.
    const speed = Math.max(1, drag.width / 300);
    setWindow(drag.level + lower * speed, drag.width + right * speed);
  });
  ["pointerup", "pointercancel"].forEach((end) => stage.addEventListener(end, (event) => { fingers.delete(event.pointerId); drag = null; }));
  stage.addEventListener("pointerleave", () => { pointer.over = false; readOut(); });
  stage.addEventListener("dblclick", () => setWindow(...data.windows[0]));

  all("[data-window]").forEach((button) => button.addEventListener("click", () => setWindow(...data.windows[button.dataset.window])));
  byId("reset").addEventListener("click", () => setWindow(...data.windows[0]));
  ["level", "width"].forEach((id) => byId(id).addEventListener("change", () => {
    const value = byId(id).valueAsNumber, wanted = { level: state.level, width: state.width };
    if (Number.isFinite(value)) wanted[id] = value;
    setWindow(wanted.level, wanted.width);
  }));

  if (heat) {
    all("[data-heat]").forEach((button) => button.addEventListener("click", () => {
      const label = button.dataset.heat;
      if (!state.heat.delete(label)) state.heat.add(label);
      state.heatShown = true;
      showHeatButtons();
    }));
    byId("heat-shown").addEventListener("click", letters.h);
    byId("opacity").addEventListener("input", () => { state.opacity = Number(byId("opacity").value) / 100; drawHeat(); });
    state.opacity = Number(byId("opacity").value) / 100;
    inflate(byId("heat").textContent).then((maps) => { state.maps = maps; drawHeat(); });
    new ResizeObserver(() => drawHeat()).observe(stage);
  }

  /* ---- the curve ---- */

  function nearest(event) {
    const box = plot.getBoundingClientRect(), part = (event.clientX - box.left) / box.width;
    let best = 0;
    data.positions.forEach((position, i) => { if (Math.abs(position - part) < Math.abs(data.positions[best] - part)) best = i; });
    return best;
  }
  const slide = { role: "slider", tabindex: "0", "aria-label": "Slice, on the curve", "aria-valuemin": "1", "aria-valuemax": String(count) };
  Object.entries(slide).forEach(([name, value]) => plot.setAttribute(name, value));
  plot.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    event.preventDefault();
    plot.focus({ preventScroll: true });
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
  results.forEach((row) => row.addEventListener("click", () => { state.label = row.dataset.label; showLabel(); }));

  const asked = /^#slice-(\d+)$/.exec(location.hash);
  if (asked) state.slice = clamp(Number(asked[1]), 1, count) - 1;
  slider.disabled = count === 1;
  thumbs.forEach((thumb) => { thumb.tabIndex = -1; });
  fillGreys();
  setWindow(state.level, state.width);
  showSlice();
  showLabel();
})();
