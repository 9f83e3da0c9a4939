// The image with one transparent outline per target above it, its legend, and the slider of a volume.

import { address } from "./api.js";

const find = (id) => document.getElementById(id);
const hidden = new Set(); // labels that the reader has switched off
let shown = null;

export function showPicture(item) {
  shown = item;
  const { view, trouble } = item;
  find("trouble").hidden = !trouble;
  find("trouble").textContent = trouble ?? "";
  find("stack").hidden = !view;
  find("slices").hidden = !view || view.slices === 1;
  find("legend").replaceChildren(...item.targets.map(legendEntry));
  if (!view) return;
  find("stack").style.setProperty("--aspect", view.aspect);
  find("slice").max = view.slices - 1;
  find("slice").value = view.first;
  drawSlice(view.first);
}

export function toggleOutlines() {
  return find("stack").classList.toggle("bare") ? "Outlines hidden." : "Outlines shown.";
}

export function stepSlice(step) {
  if (!shown?.view || shown.view.slices === 1) return;
  find("slice").value = Number(find("slice").value) + step;
  drawSlice(Number(find("slice").value));
}

function drawSlice(k) {
  find("slice-number").textContent = `${k + 1} of ${shown.view.slices}`;
  const names = shown.targets.map((target) => target.label).join(", ");
  const image = layer("image", { id: shown.id, k }, `${shown.modality} image${names ? `, outlined: ${names}` : ""}`);
  const outlines = shown.targets.map((target, n) => {
    const drawn = layer("outline", { id: shown.id, target: n, k }, "");
    drawn.className = "outline";
    drawn.dataset.label = target.label;
    drawn.hidden = hidden.has(target.label);
    return drawn;
  });
  find("stack").replaceChildren(image, ...outlines);
}

function layer(path, query, alt) {
  const image = new Image();
  image.src = address(path, query);
  image.alt = alt;
  image.addEventListener("error", async () => {
    const refusal = await fetch(image.src).then((response) => response.json()).catch(() => ({}));
    find("trouble").hidden = false;
    find("trouble").textContent = refusal.detail ?? "A picture cannot be loaded.";
  });
  return image;
}

function legendEntry(target) {
  const entry = document.createElement("li");
  const label = document.createElement("label");
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: !hidden.has(target.label) });
  label.style.setProperty("--colour", target.colour);
  label.append(box, document.createElement("i"), target.label);
  box.addEventListener("change", () => {
    box.checked ? hidden.delete(target.label) : hidden.add(target.label);
    for (const drawn of find("stack").querySelectorAll(".outline")) drawn.hidden = hidden.has(drawn.dataset.label);
  });
  entry.append(label);
  return entry;
}

find("slice").addEventListener("input", (event) => drawSlice(Number(event.target.value)));
