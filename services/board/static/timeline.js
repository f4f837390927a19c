// Zoom and pan of the timeline: marks carry their times, and are laid out anew for the window that is shown.
"use strict";

(function start() {
  const svg = document.getElementById("timeline");
  if (!svg) return;
  const first = Number(svg.dataset.start), last = Number(svg.dataset.end);
  const left = Number(svg.dataset.left), right = Number(svg.dataset.right), height = Number(svg.dataset.height);
  const marks = [...svg.querySelectorAll(".mark")];
  const ticks = svg.querySelector(".ticks");
  const detail = document.getElementById("timeline-detail");
  const day = 86400, shortest = 20 * day;
  const steps = [1, 2, 7, 14, 30.44, 60.9, 91.3, 182.6, 365.25, 730.5, 1826, 3652].map((d) => d * day);
  const view = { from: first, to: last };

  const x = (t) => left + ((t - view.from) / (view.to - view.from)) * (right - left);
  const element = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    return made;
  };

  function label(time, step) {
    const options = step < 28 * day ? { day: "2-digit", month: "short" } : step < 360 * day ? { month: "short", year: "numeric" } : { year: "numeric" };
    return new Date(time * 1000).toLocaleDateString("en-GB", { ...options, timeZone: "UTC" });
  }

  function times(step) {
    const found = [];
    const months = Math.round(step / (30.44 * day));
    if (months < 1) {
      for (let t = Math.ceil(view.from / step) * step; t <= view.to; t += step) found.push(t);
      return found;
    }
    const begin = new Date(view.from * 1000);
    for (let n = Math.ceil((begin.getUTCFullYear() * 12 + begin.getUTCMonth()) / months) * months; ; n += months) {
      const t = Date.UTC(Math.floor(n / 12), n % 12, 1) / 1000;
      if (t > view.to) return found;
      if (t >= view.from) found.push(t);
    }
  }

  function draw() {
    for (const mark of marks) {
      const begin = Number(mark.dataset.start), end = Number(mark.dataset.end);
      const from = Math.max(x(begin), left), to = Math.min(x(end), right);
      const outside = end < view.from || begin > view.to;
      mark.setAttribute("visibility", outside ? "hidden" : "visible");
      if (outside) continue;
      mark.setAttribute("x", from - 4);
      mark.setAttribute("width", Math.max(0, to - from) + 8);
    }
    const step = steps.find((s) => (view.to - view.from) / s <= 9) || steps.at(-1);
    ticks.replaceChildren(...times(step).flatMap((t) => {
      const text = element("text", { x: x(t), y: height - 4, "text-anchor": "middle" });
      text.textContent = label(t, step);
      return [element("line", { class: "grid", x1: x(t), x2: x(t), y1: 4, y2: height - 18 }), text];
    }));
    svg.dataset.from = view.from;
    svg.dataset.to = view.to;
  }

  function show(from, to) {
    const span = Math.min(Math.max(to - from, shortest), last - first);
    const middle = (from + to) / 2;
    view.from = Math.min(Math.max(middle - span / 2, first), last - span);
    view.to = view.from + span;
    draw();
  }

  function zoom(factor, at = (view.from + view.to) / 2) {
    show(at - (at - view.from) / factor, at + (view.to - at) / factor);
  }

  document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
    const how = button.dataset.zoom;
    if (how === "0") show(first, last);
    else if (how === "year") show(last - 380 * day, last);
    else zoom(Number(how));
  }));
  svg.addEventListener("keydown", (event) => {
    const span = view.to - view.from;
    const keys = { "+": () => zoom(1.6), "=": () => zoom(1.6), "-": () => zoom(0.625), ArrowLeft: () => show(view.from - span / 5, view.to - span / 5), ArrowRight: () => show(view.from + span / 5, view.to + span / 5), Home: () => show(first, last) };
    if (keys[event.key]) { keys[event.key](); event.preventDefault(); event.stopPropagation(); }
  });
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.shiftKey) return;
    event.preventDefault();
    const box = svg.getBoundingClientRect();
    const at = view.from + (((event.clientX - box.left) / box.width) * Number(svg.viewBox.baseVal.width) - left) / (right - left) * (view.to - view.from);
    zoom(event.deltaY < 0 ? 1.25 : 0.8, at);
  }, { passive: false });
  // A long history starts with its last two years: that is what is asked about first.
  if (last - first > 5 * 365 * day) show(last - 730 * day, last);
  let drag = null;
  svg.addEventListener("pointerdown", (event) => { drag = { x: event.clientX, from: view.from, to: view.to }; svg.setPointerCapture(event.pointerId); });
  svg.addEventListener("pointermove", (event) => {
    const over = document.elementFromPoint(event.clientX, event.clientY);
    if (over?.classList.contains("mark")) detail.textContent = over.querySelector("title").textContent;
    if (!drag) return;
    const moved = ((drag.x - event.clientX) / svg.getBoundingClientRect().width) * (view.to - view.from);
    show(drag.from + moved, drag.to + moved);
  });
  svg.addEventListener("pointerup", () => { drag = null; });
})();
