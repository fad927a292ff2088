import type { AvailableMessage } from '../../common/wire/control-message.ts';
import type { Epoch, StreamId } from '../../common/wire/frame.ts';
import { RangeSet } from '../range-set.ts';
import { epochKey } from '../stream-key.ts';

type Entry = AvailableMessage['ranges'][number];

/** Frames that came late, collected until they are offered; as many ranges as there are gaps between them. */
export class AvailableRanges {
  readonly #epochs = new Map<
    string,
    { readonly stream: StreamId; readonly epoch: Epoch; readonly seqs: RangeSet }
  >();

  get isEmpty(): boolean {
    return this.#epochs.size === 0;
  }

  add(stream: StreamId, epoch: Epoch, seq: number): void {
    const key = epochKey(stream, epoch);
    const entry = this.#epochs.get(key) ?? { stream, epoch, seqs: new RangeSet() };
    entry.seqs.add(seq);
    this.#epochs.set(key, entry);
  }

  clear(): void {
    this.#epochs.clear();
  }

  /** Everything, in parts of at most `entriesMax`; nothing is left. */
  take(entriesMax: number): Entry[][] {
    const entries = [...this.#epochs.values()].flatMap(({ stream, epoch, seqs }) =>
      seqs.ranges.map((range) => ({ stream, epoch, range })),
    );
    this.#epochs.clear();
    const parts: Entry[][] = [];
    for (let index = 0; index < entries.length; index += entriesMax) {
      parts.push(entries.slice(index, index + entriesMax));
    }
    return parts;
  }
}
