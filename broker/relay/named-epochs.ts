import type { Clock } from '../../common/runtime/clock.ts';
import { TokenBucket, type Quota } from '../../common/runtime/token-bucket.ts';
import type { Database } from '../../common/sqlite/database.ts';

/** Epochs that one neighbour may begin. A site of thousands of VMs that is met for the first time is within it. */
export const newEpochsDefault: Quota = { burst: 16_384, perSecond: 100 };
/** VMs without frames that give their places up at once, the oldest first. */
const evictedVmsMax = 256;
/** Whoever was named this short a time ago may have its first frames on their way into the log. */
const evictionAgeMs = 60_000;
/** When there was none, it is not looked again before. */
const evictionIntervalMs = 5_000;

/**
 * Bounds what one neighbour makes the log keep beside frames: how many VMs it names, in frames, heads or key statements,
 * and how fast epochs begin. Whoever is refused is heard again with the neighbour's next repetition.
 */
export class NamedEpochs {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #onEvicted: () => void;
  readonly #relation: string;
  readonly #vmsMax: number;
  readonly #bucket: TokenBucket;
  /** When each was first named, as far as that was since the start. */
  #vms: Map<string, number> | undefined;
  #evictNotBeforeMs = 0;

  /** `onEvicted` hears that epochs were removed from the log. */
  constructor(
    deps: {
      readonly database: Database;
      readonly clock: Clock;
      readonly onEvicted: () => void;
    },
    relation: string,
    vmsMax: number,
    newEpochs: Quota = newEpochsDefault,
  ) {
    this.#database = deps.database;
    this.#clock = deps.clock;
    this.#onEvicted = deps.onEvicted;
    this.#relation = relation;
    this.#vmsMax = vmsMax;
    this.#bucket = new TokenBucket(newEpochs, deps.clock.monotonicMs());
  }

  /** Whether an epoch of `vm` that the log does not know may begin; if so it counts. */
  admits(vm: string): boolean {
    const nowMs = this.#clock.monotonicMs();
    this.#vms ??= this.#readVms();
    if (!this.#vms.has(vm) && this.#vms.size >= this.#vmsMax && !this.#evict(nowMs)) return false;
    if (!this.#bucket.take(nowMs)) return false;
    if (!this.#vms.has(vm)) this.#vms.set(vm, nowMs);
    return true;
  }

  #readVms(): Map<string, number> {
    const vms = this.#database
      .prepare<[string], { vm: string }>(
        'SELECT DISTINCT vm FROM relay_sources JOIN stream_log_epochs USING (epoch_id) WHERE relation = ?',
      )
      .all(this.#relation);
    return new Map(vms.map(({ vm }) => [vm, Number.NEGATIVE_INFINITY]));
  }

  /** Whether some VM gave up its place: retention has taken all of its frames, or none ever came. */
  #evict(nowMs: number): boolean {
    if (nowMs < this.#evictNotBeforeMs) return false;
    const empty = this.#database
      .prepare<[string], { vm: string }>(
        `SELECT vm FROM relay_sources JOIN stream_log_epochs USING (epoch_id) WHERE relation = ?
         GROUP BY vm HAVING total(bytes) = 0 ORDER BY max(epoch_id)`,
      )
      .all(this.#relation)
      .filter(({ vm }) => (this.#vms?.get(vm) ?? nowMs) <= nowMs - evictionAgeMs)
      .slice(0, evictedVmsMax);
    if (empty.length === 0) {
      this.#evictNotBeforeMs = nowMs + evictionIntervalMs;
      return false;
    }
    const remove = this.#database.prepare<[string, string]>(
      `DELETE FROM stream_log_epochs
       WHERE vm = ? AND epoch_id IN (SELECT epoch_id FROM relay_sources WHERE relation = ?)`,
    );
    this.#database.transaction(() => {
      for (const { vm } of empty) remove.run(vm, this.#relation);
    })();
    for (const { vm } of empty) this.#vms?.delete(vm);
    this.#onEvicted();
    return true;
  }
}
