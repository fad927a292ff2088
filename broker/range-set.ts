/** Both ends included. */
export interface SeqRange {
  readonly fromSeq: number;
  readonly throughSeq: number;
}

/**
 * A set of sequence numbers as ascending ranges with gaps between them. Its size is the number of gaps, not of
 * members; adding at the end is constant time.
 */
export class RangeSet {
  readonly #ranges: { fromSeq: number; throughSeq: number }[] = [];

  constructor(ranges: Iterable<SeqRange> = []) {
    for (const { fromSeq, throughSeq } of ranges) this.addRange(fromSeq, throughSeq);
  }

  get ranges(): readonly SeqRange[] {
    return this.#ranges;
  }

  /** The largest member; 0 when empty. */
  get lastSeq(): number {
    return this.#ranges.at(-1)?.throughSeq ?? 0;
  }

  /** The largest n such that 1 to n are all members; 0 when 1 is none. */
  get contiguousThroughSeq(): number {
    const first = this.#ranges[0];
    return first !== undefined && first.fromSeq === 1 ? first.throughSeq : 0;
  }

  has(seq: number): boolean {
    const range = this.#ranges[this.#firstEndingAtOrAfter(seq)];
    return range !== undefined && range.fromSeq <= seq;
  }

  /** Returns false when `seq` was a member already. */
  add(seq: number): boolean {
    if (this.has(seq)) return false;
    this.addRange(seq, seq);
    return true;
  }

  addRange(fromSeq: number, throughSeq: number): void {
    const start = this.#firstEndingAtOrAfter(fromSeq - 1);
    let end = start;
    const merged = { fromSeq, throughSeq };
    for (let range = this.#ranges[end]; range !== undefined; range = this.#ranges[end]) {
      if (range.fromSeq > throughSeq + 1) break;
      merged.fromSeq = Math.min(merged.fromSeq, range.fromSeq);
      merged.throughSeq = Math.max(merged.throughSeq, range.throughSeq);
      end += 1;
    }
    const only = this.#ranges[start];
    if (end === start + 1 && only !== undefined) Object.assign(only, merged);
    else this.#ranges.splice(start, end - start, merged);
  }

  deleteRange(fromSeq: number, throughSeq: number): void {
    const first = this.#ranges[this.#firstEndingAtOrAfter(fromSeq)];
    if (first === undefined || first.fromSeq > throughSeq) return;
    const kept = this.#ranges.flatMap((range) => [
      { fromSeq: range.fromSeq, throughSeq: Math.min(range.throughSeq, fromSeq - 1) },
      { fromSeq: Math.max(range.fromSeq, throughSeq + 1), throughSeq: range.throughSeq },
    ]);
    this.#ranges.splice(
      0,
      this.#ranges.length,
      ...kept.filter((range) => range.fromSeq <= range.throughSeq),
    );
  }

  /** What lies between `fromSeq` and `throughSeq` and is no member, ascending. */
  gaps(fromSeq: number, throughSeq: number): SeqRange[] {
    const gaps: SeqRange[] = [];
    let next = fromSeq;
    for (let index = this.#firstEndingAtOrAfter(fromSeq); next <= throughSeq; index += 1) {
      const range = this.#ranges[index];
      if (range === undefined || range.fromSeq > throughSeq) {
        gaps.push({ fromSeq: next, throughSeq });
        break;
      }
      if (range.fromSeq > next) gaps.push({ fromSeq: next, throughSeq: range.fromSeq - 1 });
      next = range.throughSeq + 1;
    }
    return gaps;
  }

  #firstEndingAtOrAfter(seq: number): number {
    let low = 0;
    let high = this.#ranges.length;
    if (high > 0 && (this.#ranges[high - 1]?.throughSeq ?? 0) < seq) return high;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ranges[middle]?.throughSeq ?? 0) < seq) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
