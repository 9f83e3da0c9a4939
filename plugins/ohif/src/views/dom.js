// Building the page: elements from names, attributes and children. Data reaches the page as text only, never as markup.

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(key, value);
    else if (key === "value") made.value = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** A button with a caption; `key` names it across redraws, so that it keeps the focus. */
export function button(caption, click, attributes = {}) {
  return element("button", { type: "button", click, ...attributes }, caption);
}

/** Replace what `container` shows. The focused element, named by `data-key`, keeps focus and selection; where it is gone,
 * the container takes the focus (if it can), so that a keyboard stays in its place. */
export function redraw(container, ...children) {
  const active = container.contains(document.activeElement) ? document.activeElement : null;
  const key = active?.dataset.key;
  const selection = active && "selectionStart" in active ? [active.selectionStart, active.selectionEnd] : null;
  container.replaceChildren(...children.flat(2).filter(Boolean));
  if (!active || active === container) return;
  const again = key ? container.querySelector(`[data-key="${CSS.escape(key)}"]:not([disabled])`) : null;
  (again ?? container).focus({ preventScroll: true });
  if (again && selection && selection[0] !== null) again.setSelectionRange?.(...selection);
}
