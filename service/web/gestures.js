/** What a mouse, a pen or fingers do on an element, in its pixels. */

const SLACK = 4; // pixels that a tap may move

/** Calls `hover(at)`, `tap(at)`, `drag(dx, dy)` and, for two fingers, `pinch(factor, middle)`. */
export function watchGestures(element, { hover, tap, drag, pinch }) {
  const down = new Map(); // where each finger, or the pressed mouse, is
  let moved = false; // since the first one came down: then it is no tap

  element.addEventListener("pointerdown", (event) => {
    if (event.button || down.size === 2) return;
    moved = down.size > 0;
    down.set(event.pointerId, place(event));
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointermove", (event) => {
    const [before, at] = [down.get(event.pointerId), place(event)];
    if (!before) {
      if (!down.size) hover(at);
      return;
    }
    if (!moved && apart(before, at) < SLACK) return;
    moved = true;
    down.set(event.pointerId, at);
    const other = [...down].find(([id]) => id !== event.pointerId)?.[1];
    const [dx, dy] = [at.x - before.x, at.y - before.y];
    if (!other) drag(dx, dy);
    else {
      drag(dx / 2, dy / 2); // so far the middle between the fingers moved
      pinch(apart(at, other) / Math.max(1, apart(before, other)), { x: (at.x + other.x) / 2, y: (at.y + other.y) / 2 });
    }
  });
  element.addEventListener("pointerup", (event) => {
    if (down.delete(event.pointerId) && !moved) tap(place(event));
  });
  element.addEventListener("pointercancel", (event) => down.delete(event.pointerId));
}

const place = (event) => ({ x: event.offsetX, y: event.offsetY });
const apart = (one, other) => Math.hypot(one.x - other.x, one.y - other.y);
