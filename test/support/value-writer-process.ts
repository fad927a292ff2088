import { writeFileSync } from 'node:fs';

/*
 * Saves 1, 2, 3, ... to a file, each as one save, and prints each number whose close succeeded:
 * value-writer-process.js PATH COUNT INTERVAL_MS. A process of its own, as a save may wait for an agent that is being replaced.
 */
const [path = '', count = '0', intervalMs = '0'] = process.argv.slice(2);
const pause = new Int32Array(new SharedArrayBuffer(4));

for (let value = 1; value <= Number(count); value += 1) {
  try {
    writeFileSync(path, `${value}\n`);
    process.stdout.write(`${value}\n`);
  } catch (error) {
    process.stderr.write(`${value}: ${String(error)}\n`);
  }
  Atomics.wait(pause, 0, 0, Number(intervalMs));
}
