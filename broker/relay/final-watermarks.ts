import type { StoredMessage } from '../../common/wire/control-message.ts';
import type { Epoch, StreamId } from '../../common/wire/frame.ts';
import type { Watermark } from '../consumer/consumer-options.ts';
import type { LogCursors } from '../log/log-cursors.ts';
import { epochKey } from '../stream-key.ts';
import { policyAllows } from '../stream-policy.ts';
import type { DownstreamLink } from './relay-options.ts';

/** Epochs that are kept in memory; a neighbour could name any. */
const reportedMax = 65_536;

/**
 * What the final reader has stored, passed on upstream: for each epoch the least of what the standing neighbours on
 * the way to it report. In memory it is ahead of the durable cursors by one announcing interval at most; after a
 * restart the cursors are what is told.
 */
export class FinalWatermarks {
  readonly #standing: readonly DownstreamLink[];
  readonly #cursors: LogCursors;
  readonly #reported = new Map<string, Map<string, number>>();
  readonly #onRaised: (watermark: Watermark) => void;
  readonly #knows: (stream: StreamId, epoch: Epoch) => boolean;

  constructor(
    deps: {
      /** Its `mayHave` must be true for standing neighbours only. */
      readonly cursors: LogCursors;
      readonly onRaised: (watermark: Watermark) => void;
      /** Whether the log has heard of an epoch: of others nothing is kept in mind. */
      readonly knows: (stream: StreamId, epoch: Epoch) => boolean;
    },
    downstream: readonly DownstreamLink[],
  ) {
    this.#cursors = deps.cursors;
    this.#onRaised = deps.onRaised;
    this.#knows = deps.knows;
    this.#standing = downstream.filter(({ isStanding }) => isStanding);
  }

  /** What a neighbour says of streams that it may not have, or of epochs that nobody brought, counts for nothing. */
  note(relation: string, message: StoredMessage): void {
    if (message.by !== 'final-reader') return;
    const link = this.#standing.find((each) => each.relation === relation);
    if (link === undefined) return;
    for (const { stream, epoch, throughSeq } of message.watermarks) {
      if (!policyAllows(link.may, stream)) continue;
      const reports = this.#reportsOf(stream, epoch);
      if (reports === undefined) continue;
      const before = leastOf(reports);
      reports.set(relation, Math.max(reports.get(relation) ?? 0, throughSeq));
      const after = leastOf(reports);
      if (after > before) this.#onRaised({ stream, epoch, throughSeq: after });
    }
  }

  /** As the durable cursors have it. */
  all(): readonly Watermark[] {
    return this.#cursors.storedByAll('final-reader');
  }

  /** Epochs that are complete and gone need no memory; what is forgotten is read from the cursors again. */
  forget(): void {
    this.#reported.clear();
  }

  #reportsOf(stream: StreamId, epoch: Epoch): Map<string, number> | undefined {
    const key = epochKey(stream, epoch);
    const known = this.#reported.get(key);
    if (known !== undefined) return known;
    if (!this.#knows(stream, epoch)) return undefined;
    const reports = new Map(
      this.#standing
        .filter(({ may }) => policyAllows(may, stream))
        .map(({ relation }) => [
          relation,
          this.#cursors.throughSeq(relation, 'final-reader', stream, epoch),
        ]),
    );
    if (this.#reported.size >= reportedMax) this.forget();
    this.#reported.set(key, reports);
    return reports;
  }
}

function leastOf(reports: ReadonlyMap<string, number>): number {
  return reports.size === 0 ? 0 : Math.min(...reports.values());
}
