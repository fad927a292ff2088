const askedSlot = 0;
const answeredSlot = 1;
const lengthSlot = 2;
const headerBytes = 12;
const pageBytes = 8_192;

/**
 * How the main thread gets a report from the fuse thread, which sleeps in the kernel and takes no messages: the main
 * thread asks here and then sends any request through the mount; the fuse thread answers here before it serves it.
 */
export class StatusPage<Report> {
  readonly #words: Int32Array;
  readonly #text: Buffer;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory, 0, headerBytes / 4);
    this.#text = Buffer.from(memory, headerBytes);
  }

  static allocate(): SharedArrayBuffer {
    return new SharedArrayBuffer(pageBytes);
  }

  /** Main thread: the question's number. */
  ask(): number {
    return Atomics.add(this.#words, askedSlot, 1) + 1;
  }

  /** Main thread: the answer to that question or a later one; undefined while there is none. */
  answer(question: number): Report | undefined {
    if (Atomics.load(this.#words, answeredSlot) < question) return undefined;
    const text = this.#text.toString('utf8', 0, Atomics.load(this.#words, lengthSlot));
    return JSON.parse(text) as Report;
  }

  /** Fuse thread: answers if someone asked; costs two loads if nobody did. */
  serve(report: () => Report): void {
    const asked = Atomics.load(this.#words, askedSlot);
    if (asked === Atomics.load(this.#words, answeredSlot)) return;
    Atomics.store(this.#words, lengthSlot, this.#text.write(JSON.stringify(report())));
    Atomics.store(this.#words, answeredSlot, asked);
  }
}
