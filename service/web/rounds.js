/** Many images in requests of a few each: a bad image does not stop the others. */

import { Failure } from "./api.js";
import { batches } from "./images.js";

/**
 * Calls `send(files)` for one group of files after the other.
 *
 * Images that the service refuses are reported by `refused(file, reason)`, and the rest of their group is sent again.
 * `done(files, answer)` is called after each group. Throws the Failure that stops it; what was done stays done.
 */
export async function inRounds(files, limits, { send, done, refused }) {
  const groups = batches(files, limits);
  while (groups.length) {
    const group = groups.shift();
    try {
      done(group, await send(group));
    } catch (error) {
      if (!(error instanceof Failure) || error.passes || !error.inputs.length) throw error;
      const reasons = new Map(error.inputs.map(({ index, reason }) => [index, reason]));
      group.forEach((file, place) => reasons.has(place) && refused(file, reasons.get(place)));
      const rest = group.filter((_, place) => !reasons.has(place));
      if (rest.length) groups.unshift(rest);
    }
  }
}
