/** The view of a plane of points: zoom and place, which point is near, and how points are drawn. Knows nothing of the service. */

const NEAR = 14; // pixels
const MOST_ZOOM = 200;
const MANY = 3000; // points from which squares are drawn, in half the time of discs

export class Plane {
  /** Points at x[i], y[i] on a canvas. */
  constructor(canvas, x, y) {
    Object.assign(this, { canvas, x, y, zoom: 1 });
    const [left, right] = extent(x);
    const [low, high] = extent(y);
    this.home = { x: (left + right) / 2, y: (low + high) / 2 };
    this.centre = { ...this.home };
    this.span = { x: right - left || 1, y: high - low || 1 };
    this.order = [...x.keys()];
  }

  /** Pixels for each unit. Both axes have the same, as distances must compare. */
  get scale() {
    const { clientWidth, clientHeight } = this.canvas;
    return this.zoom * Math.min((clientWidth - 40) / this.span.x, (clientHeight - 40) / this.span.y);
  }

  /** Where each point is, in pixels of the canvas: a function of the point. */
  get places() {
    const { canvas, centre, scale } = this;
    const [middle, half] = [canvas.clientWidth / 2, canvas.clientHeight / 2];
    return (point) => ({ x: middle + (this.x[point] - centre.x) * scale, y: half - (this.y[point] - centre.y) * scale });
  }

  move(dx, dy) {
    this.centre.x -= dx / this.scale;
    this.centre.y += dy / this.scale;
  }

  /** Zooms by a factor; what is at these pixels stays there, or else the middle. */
  zoomBy(factor, { x, y } = {}) {
    const { clientWidth, clientHeight } = this.canvas;
    const [dx, dy] = [(x ?? clientWidth / 2) - clientWidth / 2, (y ?? clientHeight / 2) - clientHeight / 2];
    this.move(-dx, -dy);
    this.zoom = Math.min(MOST_ZOOM, Math.max(1, this.zoom * factor));
    this.move(dx, dy);
    if (this.zoom === 1) this.centre = { ...this.home };
  }

  /** Moves the view so that a point is within it. */
  reveal(point) {
    const { x, y } = this.places(point);
    const { clientWidth, clientHeight } = this.canvas;
    if (x < 20 || y < 20 || x > clientWidth - 20 || y > clientHeight - 20) this.centre = { x: this.x[point], y: this.y[point] };
  }

  /** The point nearest to these pixels, null if none is near. */
  nearest({ x, y }) {
    return this.best((dx, dy) => (Math.hypot(dx, dy) <= NEAR ? Math.hypot(dx, dy) : Infinity), { x, y });
  }

  /** The nearest point to the right of another one, or wherever the direction (x, y) leads; itself if there is none. */
  towards(point, direction) {
    const cost = (dx, dy) => {
      const along = dx * direction.x + dy * direction.y;
      const aside = Math.abs(dx * direction.y - dy * direction.x);
      return along > 0.5 && aside <= 2 * along ? along + 2 * aside : Infinity;
    };
    return this.best(cost, this.places(point)) ?? point;
  }

  best(cost, from) {
    let [found, least] = [null, Infinity];
    const places = this.places;
    for (const point of this.order) {
      const { x, y } = places(point);
      const value = cost(x - from.x, y - from.y);
      if (value < least) [found, least] = [point, value];
    }
    return found;
  }

  /** Draws all points, each in `colours[point]`, and rings round the `marked` one in `ink`. */
  draw(colours, marked, ink) {
    const { canvas } = this;
    const ratio = devicePixelRatio;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const brush = canvas.getContext("2d");
    brush.scale(ratio, ratio);
    const many = this.x.length > MANY;
    const radius = Math.min(7, (many ? 2 : 4) * Math.sqrt(Math.sqrt(this.zoom)));
    brush.globalAlpha = 0.8;
    const places = this.places;
    for (const point of this.order) {
      const { x, y } = places(point);
      if (x < -radius || y < -radius || x > canvas.clientWidth + radius || y > canvas.clientHeight + radius) continue;
      brush.fillStyle = colours[point];
      if (many) {
        brush.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
        continue;
      }
      brush.beginPath();
      brush.arc(x, y, radius, 0, 7);
      brush.fill();
    }
    if (marked === null) return;
    const { x, y } = places(marked);
    brush.globalAlpha = 1;
    brush.strokeStyle = ink;
    brush.lineWidth = 2;
    brush.beginPath();
    brush.arc(x, y, radius + 4, 0, 7);
    brush.stroke();
  }
}

function extent(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}
