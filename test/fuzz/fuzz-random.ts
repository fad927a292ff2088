/** Chance that a seed repeats: xorshift128 over four words that the seed is mixed into. Not for keys. */
export class FuzzRandom {
  readonly #words: Uint32Array;

  constructor(seed: number) {
    this.#words = Uint32Array.of(seed, seed ^ 0x9e37_79b9, seed ^ 0x7f4a_7c15, 0x1234_5678);
    for (let round = 0; round < 16; round += 1) this.word();
  }

  /** 32 bits. */
  word(): number {
    const words = this.#words;
    const first = words[0] ?? 0;
    const last = words[3] ?? 0;
    const mixed = first ^ (first << 11);
    words.copyWithin(0, 1);
    words[3] = last ^ (last >>> 19) ^ mixed ^ (mixed >>> 8);
    return words[3] ?? 0;
  }

  /** An integer in [0, limit); 0 when there is none. */
  below(limit: number): number {
    return limit <= 0 ? 0 : this.word() % limit;
  }

  /** True once in `times`. */
  once(times: number): boolean {
    return this.below(times) === 0;
  }

  /** @throws RangeError for an empty list. */
  pick<Item>(items: readonly Item[]): Item {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new RangeError('nothing to pick from');
    return item;
  }

  bytes(byteCount: number): Buffer {
    return Buffer.from(Array.from({ length: byteCount }, () => this.word() & 0xff));
  }
}
