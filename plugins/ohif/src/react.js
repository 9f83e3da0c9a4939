// A component of OHIF's React around an element of our own, with no React of our own: what a component returns is plain
// data. Nothing here keeps state; `mount` builds the element's content, and what it returns takes it away again.

const REACT_18 = Symbol.for("react.element");

/** A component whose whole content is one element, filled by `mount(element) -> unmount` once per appearance.
 *
 * `sample`: any element that OHIF's own React made; its mark is the one to use (React 18 and 19 differ in it).
 */
export function elementComponent(mount, sample = null) {
  let unmount = null;
  const ref = (element) => {
    unmount?.();
    unmount = element ? mount(element) : null;
  };
  const mark = sample?.$$typeof ?? REACT_18;
  const style = { height: "100%", minHeight: 0 };
  const props = mark === REACT_18 ? { style } : { style, ref };
  return () => ({ $$typeof: mark, type: "div", key: null, ref: mark === REACT_18 ? ref : null, props, _owner: null, _store: {} });
}
