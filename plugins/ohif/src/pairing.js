// Which label map image lies on which image of a stack. Cornerstone finds out by comparing positions, and images without
// positions (ultrasound, photographs, frames) or with the same one (phases) would all get the same label map.

const wrapped = new WeakMap(); // the prototype of cornerstone's stack viewport -> the pairs it knows

/** Teach cornerstone's stack viewports to pair our label map images by identity.
 *
 * Returns the Map of label map image id to image id to be filled; whatever is not in it is still compared by position.
 */
export function pairByIdentity({ cornerstone }) {
  const prototype = cornerstone.StackViewport?.prototype;
  const byPosition = prototype?.matchImagesForOverlay;
  if (typeof byPosition !== "function") return new Map();
  if (wrapped.has(prototype)) return wrapped.get(prototype);
  const pairs = new Map();
  wrapped.set(prototype, pairs);
  prototype.matchImagesForOverlay = function matchImagesForOverlay(currentImageId, overlayImageId) {
    const own = pairs.get(overlayImageId);
    if (own === undefined) return byPosition.call(this, currentImageId, overlayImageId);
    return own === currentImageId ? currentImageId : undefined;
  };
  return pairs;
}
