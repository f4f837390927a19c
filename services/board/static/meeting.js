// A meeting: who presents sends where they are; who follows is taken there. Discussion and agenda stay current.
"use strict";

(function start() {
  const root = document.getElementById("case") || document.getElementById("agenda");
  const base = `/meetings/${root.dataset.meeting}`;
  const me = root.dataset.me, key = root.dataset.case || "";
  const byId = (id) => document.getElementById(id);
  const pointer = byId("pointer");
  let presenting = false, sending = false, again = false, fresh = 0;

  const height = () => document.documentElement.scrollHeight - window.innerHeight;
  const following = () => !presenting && (byId("follow") ? byId("follow").checked : true);
  const at = { x: -1, y: -1 };

  function place() {
    return { patient_key: key, section: root.dataset.section || "", scroll: height() > 0 ? Math.min(1, window.scrollY / height()) : 0, x: at.x, y: at.y, viewer: window.oslerViewer?.state() || {} };
  }

  // One message on the way at a time; what happened meanwhile goes with the next one.
  async function send() {
    if (!presenting) return;
    if (sending) { again = true; return; }
    sending = true;
    try { await osler.post(`${base}/present`, JSON.stringify(place())); } catch { /* the next move tries again */ }
    setTimeout(() => { sending = false; if (again) { again = false; send(); } }, 60);
  }

  function showPresenter(who) {
    presenting = who === me;
    const line = byId("presenter"), button = byId("present");
    if (line) line.textContent = who ? (presenting ? "You present: others follow your pointer, page and images" : `${who} presents`) : "Nobody presents";
    if (button) { button.setAttribute("aria-pressed", String(presenting)); button.textContent = presenting ? "Stop presenting" : "Present"; }
    if (pointer && (!who || presenting)) pointer.hidden = true;
    root.dataset.presenter = who;
    if (presenting) send();
  }

  function follow(place) {
    if (place.who === me || !following()) return;
    root.dataset.followed = String(Date.now());
    if (place.patient_key && place.patient_key !== key) { location.assign(`${base}/case/${place.patient_key}`); return; }
    if (!byId("case")) return;
    window.scrollTo({ top: place.scroll * height(), behavior: "auto" });
    pointer.hidden = place.x < 0;
    pointer.style.left = `${place.x * document.documentElement.clientWidth}px`;
    pointer.style.top = `${place.y}px`;
    window.oslerViewer?.apply(place.viewer);
  }

  const live = new EventSource(`${base}/live`);
  live.addEventListener("presenter", (event) => showPresenter(JSON.parse(event.data).who));
  live.addEventListener("place", (event) => follow(JSON.parse(event.data)));
  live.addEventListener("changed", () => {
    clearTimeout(fresh);
    fresh = setTimeout(() => {
      if (!byId("dock")) { location.reload(); return; }
      // Somebody who is writing is not interrupted.
      if (byId("dock").contains(document.activeElement) && osler.typing(document.activeElement)) return;
      htmx.ajax("GET", `${base}/case/${key}/part/dock`, { target: "#dock", swap: "innerHTML" });
    }, 120);
  });
  live.addEventListener("error", () => { if (byId("presenter")) byId("presenter").textContent = "Connection lost: trying again"; });
  window.addEventListener("pagehide", () => live.close());
  document.addEventListener("htmx:afterSwap", (event) => { if (event.target.id === "dock") showPresenter(root.dataset.presenter || ""); });

  document.addEventListener("click", (event) => {
    if (event.target.id !== "present") return;
    const form = new FormData();
    form.set("on", presenting ? "no" : "yes");
    osler.post(`${base}/presenter`, form);
  });
  document.addEventListener("pointermove", (event) => {
    at.x = event.pageX / document.documentElement.clientWidth;
    at.y = event.pageY;
    send();
  }, { passive: true });
  document.addEventListener("scroll", send, { passive: true });
  document.addEventListener("osler:viewer", send);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || osler.typing(event.target)) return;
    if (event.key === "p") byId("present")?.click();
    if (event.key === "n") byId("after")?.click();
    if (event.key === "N") byId("before")?.click();
  });
})();
