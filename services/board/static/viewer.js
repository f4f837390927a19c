// Fused view of one visit, with another visit beside: a base series, an overlay in the base's space, blend, SUV window,
// linked crosshair, MIP. NiiVue draws; what the presenter sees is read and set through window.oslerViewer.
"use strict";

(function start() {
  const control = (id) => document.getElementById(id);
  const canvas = control("gl");
  const status = control("viewer-status");
  const visits = JSON.parse(control("visits").textContent).filter((v) => v.series.length > 0);
  const caseKey = control("viewer-controls").dataset.case;
  const order = { CT: 0, MR: 1, PT: 2 };
  const windows = { CT: [-160, 240], PT: [0, 8], saliency: [0.1, 1] };

  function say(text) {
    status.textContent = text;
    status.hidden = text === "";
  }

  if (visits.length === 0) {
    say("No images to show for this patient yet.");
    return;
  }

  const options = { backColor: [0, 0, 0, 1], show3Dcrosshair: true, isColorbar: false, crosshairWidth: 0.5, crosshairColor: [0.47, 0.75, 1, 0.6], loadingText: "", dragAndDropEnabled: false };
  const viewer = new niivue.Niivue(options);
  viewer.attachToCanvas(canvas);
  viewer.setRadiologicalConvention(true);
  let beside = null, mip = null;
  const tell = () => document.dispatchEvent(new CustomEvent("osler:viewer"));
  viewer.onLocationChange = (where) => {
    control("viewer-place").textContent = describe(where);
    tell();
  };

  function describe(where) {
    if (!where.mm) return "";
    const values = (where.values || []).map((v, n) => {
      const series = n === 0 ? chosen.base : chosen.overlay;
      if (!series) return "";
      if (series.modality === "saliency") return `weight ${v.value.toFixed(2)} of 1`;
      return series.modality === "PT" ? `SUV ${v.value.toFixed(1)}` : series.modality === "CT" ? `${v.value.toFixed(0)} HU` : v.value.toFixed(0);
    });
    return [...values.filter(Boolean), `${[...where.mm].slice(0, 3).map((m) => m.toFixed(0)).join(", ")} mm`].join(" · ");
  }

  const chosen = { base: null, overlay: null };
  let turn = 0;

  function fill(select, series, empty) {
    select.replaceChildren();
    if (empty) select.append(new Option("none", ""));
    series.forEach((s) => select.append(new Option(`${s.modality} · ${s.label}`, s.uid)));
  }

  const visit = () => visits[Math.min(Number(control("visit").value), visits.length - 1)];
  const sorted = (v) => [...v.series].sort((a, b) => order[a.modality] - order[b.modality]);

  function listSeries() {
    const series = sorted(visit());
    fill(control("base"), series, false);
    fill(control("overlay"), series, true);
    const pet = series.find((s) => s.modality === "PT");
    const base = series.find((s) => s.modality !== "PT") || series[0];
    control("base").value = base.uid;
    control("overlay").value = pet && pet !== base ? pet.uid : "";
    const others = visits.map((v, n) => [v, n]).filter(([v]) => v !== visit());
    control("beside").replaceChildren(new Option("nothing", ""), ...others.map(([v, n]) => new Option(v.date, String(n))));
  }

  function pickVisit() {
    listSeries();
    return load();
  }

  const url = (uid, space) => `/case/${caseKey}/volume/${uid}/in/${space}.nii.gz`;
  const find = (uid) => visit().series.find((s) => s.uid === uid);

  // One fetch for each file: what was fetched is handed to the viewer as it is, or the reason why there is none.
  async function fetched(address) {
    const answer = await fetch(address).catch(() => null);
    if (answer === null) return { wrong: "The connection to Osler is lost. Choose the series again to try once more." };
    if (answer.ok) return { source: URL.createObjectURL(await answer.blob()) };
    const problem = await answer.json().catch(() => ({}));
    const said = problem.detail || `the image could not be loaded (status ${answer.status})`;
    return { wrong: `${said.charAt(0).toUpperCase()}${said.slice(1)}.${problem.remedy ? ` To repair it: ${problem.remedy}.` : ""}` };
  }

  async function show(on, files) {
    await on.loadVolumes(files.map(({ source, ...file }) => ({ ...file, url: source })));
    files.forEach(({ source }) => URL.revokeObjectURL(source));
  }

  const baseOf = (source) => ({ source, name: "base.nii.gz", colormap: "gray" });
  const overlayOf = (series, source) => ({ source, name: "overlay.nii.gz", colormap: series.modality === "PT" ? "hot" : "winter", opacity: Number(control("blend").value) });

  async function load() {
    const mine = ++turn;
    delete canvas.dataset.ready;
    delete canvas.dataset.map;
    // Nobody may take the images of before for those that were asked for.
    canvas.classList.add("void");
    chosen.base = find(control("base").value);
    chosen.overlay = find(control("overlay").value);
    say("Loading images");
    const over = chosen.overlay && chosen.overlay !== chosen.base;
    const [base, overlay] = await Promise.all([
      fetched(url(chosen.base.uid, chosen.base.uid)),
      over ? fetched(url(chosen.overlay.uid, chosen.base.uid)) : { wrong: "" },
    ]);
    if (mine !== turn) return;
    if (base.wrong) { say(base.wrong); return; }
    const files = [baseOf(base.source), ...(overlay.source ? [overlayOf(chosen.overlay, overlay.source)] : [])];
    await show(viewer, files);
    if (mine !== turn) return;
    canvas.classList.remove("void");
    windowing();
    listPlaces();
    await loadBeside();
    await showMip();
    say(overlay.wrong || "");
    canvas.dataset.ready = String(files.length);
    performance.mark("osler:images");
    tell();
  }

  // Over the series that a network read: which voxels moved its answer.
  async function showMap({ study, series, saliency }) {
    const number = visits.findIndex((v) => v.study_uid === study && v.series.some((s) => s.uid === series));
    if (number < 0) { say("The series that the network read is not among those that the viewer shows."); return; }
    control("stage").scrollIntoView({ block: "center" });
    canvas.focus({ preventScroll: true });
    control("visit").value = String(number);
    listSeries();
    control("base").value = series;
    control("overlay").value = "";
    await load();
    const mine = turn;
    say("Asking the network where it looked: this can take some minutes");
    const map = await fetched(saliency);
    if (mine !== turn) return;
    if (map.wrong) { say(map.wrong); return; }
    chosen.overlay = { modality: "saliency", label: "where the network looked", uid: "" };
    await viewer.addVolumeFromUrl({ url: map.source, name: "saliency.nii.gz", colormap: "hot", opacity: Math.max(0.5, Number(control("blend").value)) });
    URL.revokeObjectURL(map.source);
    windowing();
    say("Colour: what moves the network's answer, not what is ill. Choose an overlay to take it away.");
    canvas.dataset.map = "saliency";
  }

  // The other visit in the space of this one's base, so that one crosshair means one place in both.
  async function loadBeside() {
    const wanted = control("beside").value;
    control("pane-beside").hidden = wanted === "";
    viewer.resizeListener?.();
    if (wanted === "") { viewer.broadcastTo([]); delete control("gl2").dataset.ready; return; }
    control("gl2").classList.add("void");
    const other = visits[Number(wanted)];
    const base = sorted(other).find((s) => s.modality === chosen.base.modality);
    const label = control("beside-label");
    label.textContent = other.date;
    if (!base) { label.textContent = `${other.date}: no ${chosen.base.modality}`; return; }
    const found = await fetched(url(base.uid, chosen.base.uid));
    if (found.wrong) { label.textContent = `${other.date}: ${found.wrong}`; return; }
    if (!beside) {
      beside = new niivue.Niivue(options);
      beside.attachToCanvas(control("gl2"));
      beside.setRadiologicalConvention(true);
    }
    const files = [baseOf(found.source)];
    const pet = chosen.overlay && sorted(other).find((s) => s.modality === chosen.overlay.modality && s !== base);
    const over = pet ? await fetched(url(pet.uid, chosen.base.uid)) : {};
    if (over.source) files.push(overlayOf(pet, over.source));
    await show(beside, files);
    control("gl2").classList.remove("void");
    if (control("layout").value !== "mip") beside.setSliceType(Number(control("layout").value));
    viewer.broadcastTo([beside], { "2d": true, "3d": true });
    beside.broadcastTo([viewer], { "2d": true, "3d": true });
    windowing();
    viewer.createOnLocationChange();
    control("gl2").dataset.ready = String(files.length);
  }

  // Maximum intensity projections are made by the server: one picture for each angle.
  async function showMip() {
    const on = control("layout").value === "mip";
    if (!on) { mip?.remove(); mip = null; return; }
    const pet = [chosen.overlay, chosen.base].find((s) => s?.modality === "PT") || chosen.base;
    if (!mip) {
      mip = Object.assign(document.createElement("img"), { className: "mip", tabIndex: 0 });
      mip.dataset.angle = "0";
      mip.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -15, ArrowRight: 15 }[event.key];
        if (!step) return;
        mip.dataset.angle = String((Number(mip.dataset.angle) + step + 360) % 360);
        event.preventDefault();
        showMip();
      });
      control("gl").parentElement.append(mip);
    }
    const address = `/case/${caseKey}/mip/${pet.uid}/${mip.dataset.angle}.png?top=${control("suv").value}`;
    mip.alt = `Maximum intensity projection of the ${pet.modality} from ${mip.dataset.angle} degrees; left and right arrows turn it`;
    if (!mip.src.endsWith(address)) mip.src = address;
  }

  // Lesions measured in the space of the base series; others would need a transform that the viewer does not have.
  function listPlaces() {
    const here = visit().places.filter((p) => p.frame === chosen.base.frame);
    const select = control("place");
    select.replaceChildren(new Option(here.length ? "choose" : "none here", ""), ...here.map((p, n) => new Option(p.label, String(n))));
    select.onchange = () => { if (select.value !== "") go(here[Number(select.value)].ras); };
    if (here.length) { select.value = "0"; go(here[0].ras); }
  }

  function go(ras) {
    viewer.scene.crosshairPos = viewer.mm2frac(ras);
    viewer.createOnLocationChange();
    viewer.drawScene();
  }

  function windowing() {
    const top = Number(control("suv").value);
    control("suv-out").value = top;
    for (const shown of [viewer, beside].filter(Boolean)) {
      shown.volumes.forEach((volume, n) => {
        const modality = (n === 0 ? chosen.base : chosen.overlay)?.modality;
        if (modality === "PT") { volume.cal_min = n === 0 ? 0 : 1; volume.cal_max = top; }
        else if (windows[modality]) { [volume.cal_min, volume.cal_max] = windows[modality]; }
      });
      if (shown.volumes.length) shown.updateGLVolume();
    }
    tell();
  }

  function blend() {
    for (const shown of [viewer, beside].filter(Boolean)) if (shown.volumes.length > 1) shown.setOpacity(1, Number(control("blend").value));
    tell();
  }

  function layout() {
    const wanted = control("layout").value;
    if (wanted !== "mip") for (const shown of [viewer, beside].filter(Boolean)) shown.setSliceType(Number(wanted));
    showMip().then(tell);
  }

  const failed = () => say("The viewer could not start: this browser has no WebGL 2.");
  document.addEventListener("click", (event) => {
    const asked = event.target.closest("[data-saliency]");
    if (asked) showMap(asked.dataset).catch(failed);
  });
  control("visit").addEventListener("change", () => pickVisit().catch(failed));
  control("base").addEventListener("change", () => load().catch(failed));
  control("overlay").addEventListener("change", () => load().catch(failed));
  control("beside").addEventListener("change", () => loadBeside().then(tell).catch(failed));
  control("suv").addEventListener("input", () => { windowing(); showMip(); });
  control("blend").addEventListener("input", blend);
  control("layout").addEventListener("change", layout);
  control("visit").value = String(visits.length - 1);

  window.oslerViewer = {
    state() {
      if (!viewer.volumes.length) return {};
      const mm = [...viewer.frac2mm(viewer.scene.crosshairPos)].slice(0, 3);
      return { visit: control("visit").value, base: control("base").value, overlay: control("overlay").value, layout: control("layout").value, blend: Number(control("blend").value), suv: Number(control("suv").value), mm };
    },
    async apply(wanted) {
      if (!wanted || wanted.visit === undefined || !viewer.volumes.length) return;
      if (wanted.visit !== control("visit").value) { control("visit").value = wanted.visit; await pickVisit(); }
      if (wanted.base !== control("base").value || wanted.overlay !== control("overlay").value) {
        control("base").value = wanted.base;
        control("overlay").value = wanted.overlay;
        await load();
      }
      if (wanted.layout !== control("layout").value) { control("layout").value = wanted.layout; layout(); }
      if (wanted.blend !== Number(control("blend").value)) { control("blend").value = wanted.blend; blend(); }
      if (wanted.suv !== Number(control("suv").value)) { control("suv").value = wanted.suv; windowing(); }
      if (wanted.mm) go(wanted.mm);
    },
  };
  pickVisit().catch(failed);
})();
