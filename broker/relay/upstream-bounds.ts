import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import type { Database } from '../../common/sqlite/database.ts';
import { NeighbourByteQuotas, type DelayCounts } from '../quota/byte-quotas.ts';
import { FairShare, type ByteQuota } from '../quota/fair-share.ts';
import { NamedEpochs } from './named-epochs.ts';
import type { UpstreamLink } from './relay-options.ts';

interface Bounds {
  readonly bytes: NeighbourByteQuotas;
  readonly names: NamedEpochs;
}

/** What each neighbour towards the VMs may bring and name. */
export class UpstreamBounds {
  readonly #bounds: ReadonlyMap<string, Bounds>;

  /** `onEvicted` hears that whole epochs were removed from the log. */
  constructor(
    deps: {
      readonly database: Database;
      readonly clock: Clock;
      readonly log: Log;
      readonly onEvicted: () => void;
    },
    siteQuota: ByteQuota,
    upstream: readonly UpstreamLink[],
  ) {
    const site = new FairShare(siteQuota, deps.clock.monotonicMs());
    this.#bounds = new Map(
      upstream.map(({ relation, quotas }) => [
        relation,
        {
          bytes: new NeighbourByteQuotas({ ...deps, site }, relation, quotas),
          names: new NamedEpochs(deps, relation, quotas.vmsMax),
        },
      ]),
    );
  }

  bytesOf(relation: string): NeighbourByteQuotas | undefined {
    return this.#bounds.get(relation)?.bytes;
  }

  /** Whether the neighbour may begin an epoch of `vm` that the log does not know; if so it counts. */
  admits(relation: string, vm: string): boolean {
    return this.#bounds.get(relation)?.names.admits(vm) ?? false;
  }

  /** Frames of a neighbour, or of one of its VMs, that were over a quota when they came; null: it sends us none. */
  delays(relation: string, vm?: string): DelayCounts | null {
    const bytes = this.bytesOf(relation);
    if (bytes === undefined) return null;
    return vm === undefined ? bytes.counts : bytes.countsOf(vm);
  }
}
