// The case page: sections by key, parts that follow the case, reviews by key, sliders that say their value.
"use strict";

(function start() {
  const root = document.getElementById("case");
  const base = `/case/${root.dataset.case}`;
  const tabs = [...document.querySelectorAll(".tabs a")];
  const sections = tabs.map((a) => document.querySelector(a.getAttribute("href")));

  document.documentElement.style.setProperty("--casebar", `${document.querySelector(".casebar").offsetHeight}px`);

  function mark() {
    const edge = document.querySelector(".casebar").offsetHeight + 40;
    const bottom = window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 2;
    let here = bottom ? sections.length - 1 : 0;
    if (!bottom) sections.forEach((s, n) => { if (s.getBoundingClientRect().top <= edge) here = n; });
    tabs.forEach((a, n) => { if (n === here) a.setAttribute("aria-current", "true"); else a.removeAttribute("aria-current"); });
    root.dataset.section = sections[here].id;
  }
  document.addEventListener("scroll", mark, { passive: true });
  mark();

  // Parts are fetched again when the case changes: after a review here, or new results from anywhere.
  const parts = () => [...document.querySelectorAll("[data-part]")];
  let waiting = 0;
  function refresh() {
    clearTimeout(waiting);
    waiting = setTimeout(() => parts().forEach((part) => {
      if (part.contains(document.activeElement) && document.activeElement.closest("form, [data-part]")?.matches("form")) return;
      htmx.ajax("GET", `${base}/part/${part.dataset.part}`, { target: part, swap: "innerHTML" });
    }), 150);
  }
  const live = new EventSource(`${base}/live`);
  live.addEventListener("changed", refresh);
  window.addEventListener("pagehide", () => live.close());

  document.addEventListener("input", (event) => {
    if (event.target.type !== "range") return;
    const out = document.querySelector(`output[for="${event.target.id}"]`);
    if (out) out.value = event.target.value;
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || osler.typing(event.target)) return;
    const number = Number(event.key);
    if (number >= 1 && number <= sections.length) { sections[number - 1].scrollIntoView(); tabs[number - 1].focus({ preventScroll: true }); return; }
    if (event.key === "v") { document.getElementById("gl").focus(); event.preventDefault(); return; }
    if (event.key === "b") { document.getElementById("blend").focus(); event.preventDefault(); return; }
    if (event.key === "l" || event.key === "L") {
      const select = document.getElementById("place");
      const count = select.options.length - 1;
      if (count < 1) return;
      const now = select.selectedIndex;
      select.selectedIndex = event.key === "l" ? (now % count) + 1 : ((now - 2 + count) % count) + 1;
      select.dispatchEvent(new Event("change"));
      return;
    }
    const row = event.target.closest?.("tr[data-finding]");
    row?.querySelector(`[data-key="${event.key}"]`)?.click();
  });
})();
