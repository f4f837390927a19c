// Fused view of one visit: a base series, an overlay in the base's space, blend and SUV window. NiiVue does the drawing.
"use strict";

(function start() {
  const control = (id) => document.getElementById(id);
  const canvas = control("gl");
  const status = control("viewer-status");
  const visits = JSON.parse(control("visits").textContent).filter((v) => v.series.length > 0);
  const caseKey = control("viewer-controls").dataset.case;
  const order = { CT: 0, MR: 1, PT: 2 };
  const windows = { CT: [-160, 240], PT: [0, 8] };

  function say(text) {
    status.textContent = text;
    status.hidden = text === "";
  }

  if (visits.length === 0) {
    say("No images to show for this patient yet.");
    return;
  }

  const viewer = new niivue.Niivue({ backColor: [0, 0, 0, 1], show3Dcrosshair: true, isColorbar: false, crosshairWidth: 0.5, crosshairColor: [0.47, 0.75, 1, 0.6], loadingText: "", dragAndDropEnabled: false });
  viewer.attachToCanvas(canvas);
  viewer.setRadiologicalConvention(true);
  viewer.onLocationChange = (where) => { control("viewer-place").textContent = where.string; };

  const chosen = { base: null, overlay: null };
  let turn = 0;

  function fill(select, series, empty) {
    select.replaceChildren();
    if (empty) select.append(new Option("none", ""));
    series.forEach((s) => select.append(new Option(`${s.modality} · ${s.label}`, s.uid)));
  }

  function visit() {
    const chosenDay = control("visit").value;
    return visits[Math.min(Number(chosenDay), visits.length - 1)];
  }

  function pickVisit() {
    const series = [...visit().series].sort((a, b) => order[a.modality] - order[b.modality]);
    fill(control("base"), series, false);
    fill(control("overlay"), series, true);
    const pet = series.find((s) => s.modality === "PT");
    const base = series.find((s) => s.modality !== "PT") || series[0];
    control("base").value = base.uid;
    control("overlay").value = pet && pet !== base ? pet.uid : "";
    return load();
  }

  const url = (uid, space) => `/case/${caseKey}/volume/${uid}/in/${space}.nii.gz`;
  const find = (uid) => visit().series.find((s) => s.uid === uid);

  async function reachable(address) {
    const answer = await fetch(address);
    if (answer.ok) return "";
    const problem = await answer.json().catch(() => ({}));
    return problem.detail || `the image could not be loaded (status ${answer.status})`;
  }

  async function load() {
    const mine = ++turn;
    chosen.base = find(control("base").value);
    chosen.overlay = find(control("overlay").value);
    say("Loading images");
    const list = [{ url: url(chosen.base.uid, chosen.base.uid), name: "base.nii.gz", colormap: "gray" }];
    let note = "";
    if (chosen.overlay && chosen.overlay !== chosen.base) {
      const address = url(chosen.overlay.uid, chosen.base.uid);
      note = await reachable(address);
      if (note === "") list.push({ url: address, name: "overlay.nii.gz", colormap: chosen.overlay.modality === "PT" ? "hot" : "winter", opacity: Number(control("blend").value) });
    }
    const wrong = await reachable(list[0].url);
    if (mine !== turn) return;
    if (wrong) { say(wrong); return; }
    await viewer.loadVolumes(list);
    windowing();
    listPlaces();
    say(note);
    canvas.dataset.ready = String(list.length);
  }

  // Lesions measured in the space of the base series; others would need a transform that the viewer does not have.
  function listPlaces() {
    const here = visit().places.filter((p) => p.frame === chosen.base.frame);
    const select = control("place");
    select.replaceChildren(new Option(here.length ? "choose" : "none here", ""));
    here.forEach((p, n) => select.append(new Option(p.label, String(n))));
    select.onchange = () => { if (select.value !== "") go(here[Number(select.value)]); };
    if (here.length) { select.value = "0"; go(here[0]); }
  }

  function go(place) {
    viewer.scene.crosshairPos = viewer.mm2frac(place.ras);
    viewer.createOnLocationChange();
    viewer.drawScene();
  }

  function windowing() {
    const top = Number(control("suv").value);
    control("suv-out").value = top;
    viewer.volumes.forEach((volume, n) => {
      const modality = (n === 0 ? chosen.base : chosen.overlay).modality;
      if (modality === "PT") { volume.cal_min = n === 0 ? 0 : 1; volume.cal_max = top; }
      else if (windows[modality]) { [volume.cal_min, volume.cal_max] = windows[modality]; }
    });
    viewer.updateGLVolume();
  }

  control("visit").addEventListener("change", pickVisit);
  control("base").addEventListener("change", load);
  control("overlay").addEventListener("change", load);
  control("suv").addEventListener("input", windowing);
  control("blend").addEventListener("input", () => { if (viewer.volumes.length > 1) viewer.setOpacity(1, Number(control("blend").value)); });
  control("layout").addEventListener("change", () => viewer.setSliceType(Number(control("layout").value)));
  control("visit").value = String(visits.length - 1);
  pickVisit().catch(() => say("The viewer could not start: this browser has no WebGL 2."));
})();
