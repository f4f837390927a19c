// Every page: dialogs, keys, the theme, the CSRF token of scripted posts, and the idle lock.
"use strict";

(function start() {
  const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.content || "";
  const byId = (id) => document.getElementById(id);

  window.osler = {
    post(url, body) {
      const json = typeof body === "string";
      return fetch(url, { method: "POST", body, keepalive: true, headers: { "x-csrf-token": meta("csrf"), ...(json ? { "content-type": "application/json" } : {}) } });
    },
    typing(target) { return Boolean(target.closest("input:not([type=range]):not([type=checkbox]), textarea, select, dialog[open]")); },
  };

  // htmx notes the page's address for its history, which this application does not use: nothing of a case stays behind.
  sessionStorage.clear();
  window.addEventListener("pagehide", () => sessionStorage.clear());

  byId("theme")?.addEventListener("change", (event) => event.target.form.submit());

  const help = byId("help"), dialog = byId("dialog");
  byId("help-open")?.addEventListener("click", () => help.showModal());
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
    if (event.target.closest("[data-dismiss]")) byId("notice").replaceChildren();
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.target.id === "dialog-body" && !dialog.open) dialog.showModal();
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.successful && event.detail.requestConfig.verb !== "get" && dialog?.open && dialog.contains(event.target)) dialog.close();
  });
  document.addEventListener("htmx:sendError", () => {
    const box = document.createElement("div");
    box.className = "toast";
    const text = document.createElement("p");
    text.textContent = "The connection to Osler is lost. What you typed is still here: try again in a moment.";
    const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: "Dismiss" });
    button.dataset.dismiss = "";
    box.append(text, button);
    byId("notice").replaceChildren(box);
  });

  const places = { c: "/", m: "/meetings", t: "/tasks", r: "/reads" };
  let going = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || osler.typing(event.target)) return;
    if (event.key === "?" && help) { help.showModal(); event.preventDefault(); return; }
    if (event.key === "g") { going = Date.now(); return; }
    if (Date.now() - going < 1200 && places[event.key]) { location.assign(places[event.key]); }
    going = 0;
  });

  // The idle lock: the page goes blank before the server ends the session. Nothing is kept in the browser's storage.
  const idle = Number(meta("idle"));
  if (idle) {
    let last = Date.now();
    let told = Date.now();
    for (const kind of ["pointermove", "pointerdown", "keydown", "wheel", "touchstart"]) {
      document.addEventListener(kind, () => {
        last = Date.now();
        if (last - told > Math.min(60_000, idle * 250)) { told = last; fetch("/here", { cache: "no-store" }).catch(() => {}); }
      }, { passive: true });
    }
    setInterval(() => {
      if (Date.now() - last < idle * 1000) return;
      last = Date.now();
      document.documentElement.classList.add("locked");
      osler.post("/logout", new FormData()).finally(() => location.replace(`/login?why=idle&next=${encodeURIComponent(location.pathname)}`));
    }, 1000);
  }
})();
