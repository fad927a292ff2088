import type { Clock } from '../../common/runtime/clock.ts';
import type { Log } from '../../common/runtime/log.ts';
import { TokenBucket } from '../../common/runtime/token-bucket.ts';
import { FairShare, type ByteQuota } from './fair-share.ts';

/** What one neighbour may bring. */
export interface NeighbourQuotas {
  readonly neighbour: ByteQuota;
  /** Of each VM among what the neighbour brings. */
  readonly vm: ByteQuota;
}

/**
 * Far above what an honest load needs: 20,000 measurements a second of 12 bytes are 240 kB/s, and a back-fill at twenty times
 * that is 5 MB/s. A burst holds the largest packet (4 MiB) many times.
 */
export const byteQuotaDefaults = {
  vm: { bytesPerSecond: 8 * 1_024 * 1_024, burstBytes: 64 * 1_024 * 1_024 },
  neighbour: { bytesPerSecond: 32 * 1_024 * 1_024, burstBytes: 256 * 1_024 * 1_024 },
  site: { bytesPerSecond: 64 * 1_024 * 1_024, burstBytes: 512 * 1_024 * 1_024 },
} as const satisfies Readonly<Record<string, ByteQuota>>;

/** Frames that were not taken when they came, as they were over a quota. They come by query later. */
export interface DelayCounts {
  readonly delayedFrames: number;
  readonly delayedBytes: number;
}

/** Quotas as the consumer of one neighbour asks for them. */
export interface IntakeQuotas {
  /** Whether a frame that comes unasked may be taken now; if so it counts. */
  take(vm: string, bytes: number): boolean;
  /** How much of `bytesMax` may be asked for now; it counts. */
  grant(vm: string, bytesMax: number): number;
  /** What was granted and did not come. */
  giveBack(vm: string, bytes: number): void;
  /** What came anyway, beyond what was granted. */
  charge(vm: string, bytes: number): void;
  /** Bytes of no VM, which are not worth anything. */
  chargeNonsense(bytes: number): void;
  /** A frame was not taken. */
  delayed(vm: string, bytes: number): void;
}

/** Stands for what is of no VM; no id is empty. */
const noVm = '';
/** Buckets of VMs that are kept; beyond it those that are full again are forgotten, then the oldest. */
const vmsKeptMax = 16_384;

interface VmState {
  readonly bucket: TokenBucket;
  delayedFrames: number;
  delayedBytes: number;
}

/**
 * The quotas of one neighbour and of each VM that it brings, within that of the site: bytes must fit into all three. The VMs
 * share the neighbour's and the neighbours share the site's fairly: neither VMs nor neighbours that flood, however many,
 * use up what a modest one needs.
 *
 *   VM: a token bucket -- neighbour: shared by its VMs -- site: shared by the neighbours
 */
export class NeighbourByteQuotas implements IntakeQuotas {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #site: FairShare;
  readonly #neighbour: FairShare;
  readonly #vmQuota: ByteQuota;
  readonly #relation: string;
  readonly #vms = new Map<string, VmState>();
  #delayedFrames = 0;
  #delayedBytes = 0;

  constructor(
    deps: { readonly clock: Clock; readonly log: Log; readonly site: FairShare },
    relation: string,
    { neighbour, vm }: NeighbourQuotas,
  ) {
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#site = deps.site;
    this.#relation = relation;
    this.#vmQuota = vm;
    this.#neighbour = new FairShare(neighbour, deps.clock.monotonicMs());
  }

  take(vm: string, bytes: number): boolean {
    const nowMs = this.#clock.monotonicMs();
    if (this.#room(vm, nowMs) < bytes) return false;
    this.#charge(vm, nowMs, bytes);
    return true;
  }

  grant(vm: string, bytesMax: number): number {
    const nowMs = this.#clock.monotonicMs();
    const bytes = Math.max(0, Math.min(bytesMax, Math.floor(this.#room(vm, nowMs))));
    this.#charge(vm, nowMs, bytes);
    return bytes;
  }

  giveBack(vm: string, bytes: number): void {
    this.charge(vm, -bytes);
  }

  charge(vm: string, bytes: number): void {
    this.#charge(vm, this.#clock.monotonicMs(), bytes);
  }

  chargeNonsense(bytes: number): void {
    this.#neighbour.charge(noVm, bytes);
    this.#site.charge(this.#relation, bytes);
  }

  delayed(vm: string, bytes: number): void {
    const state = this.#of(vm, this.#clock.monotonicMs());
    state.delayedFrames += 1;
    state.delayedBytes += bytes;
    this.#delayedFrames += 1;
    this.#delayedBytes += bytes;
    const { delayedFrames, delayedBytes } = state;
    this.#log.warn('quota-exceeded', { relation: this.#relation, vm, delayedFrames, delayedBytes });
  }

  /** Of all VMs of the neighbour, since the process started. */
  get counts(): DelayCounts {
    return { delayedFrames: this.#delayedFrames, delayedBytes: this.#delayedBytes };
  }

  /** Of one VM, since the process started or the VM was last forgotten. */
  countsOf(vm: string): DelayCounts {
    const { delayedFrames = 0, delayedBytes = 0 } = this.#vms.get(vm) ?? {};
    return { delayedFrames, delayedBytes };
  }

  #room(vm: string, nowMs: number): number {
    return Math.min(
      this.#of(vm, nowMs).bucket.level(nowMs),
      this.#neighbour.room(vm, nowMs),
      this.#site.room(this.#relation, nowMs),
    );
  }

  #charge(vm: string, nowMs: number, bytes: number): void {
    this.#of(vm, nowMs).bucket.charge(nowMs, bytes);
    this.#neighbour.charge(vm, bytes);
    this.#site.charge(this.#relation, bytes);
  }

  #of(vm: string, nowMs: number): VmState {
    const known = this.#vms.get(vm);
    if (known !== undefined) return known;
    if (this.#vms.size >= vmsKeptMax) this.#forget(nowMs);
    const state = { bucket: bucketOf(this.#vmQuota, nowMs), delayedFrames: 0, delayedBytes: 0 };
    this.#vms.set(vm, state);
    return state;
  }

  #forget(nowMs: number): void {
    for (const [vm, { bucket }] of this.#vms) {
      if (bucket.level(nowMs) >= bucket.quota.burst) this.#vms.delete(vm);
    }
    for (const vm of this.#vms.keys()) {
      if (this.#vms.size < vmsKeptMax) return;
      this.#vms.delete(vm);
    }
  }
}

function bucketOf({ bytesPerSecond, burstBytes }: ByteQuota, nowMs: number): TokenBucket {
  return new TokenBucket({ perSecond: bytesPerSecond, burst: burstBytes }, nowMs);
}
