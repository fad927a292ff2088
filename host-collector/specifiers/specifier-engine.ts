import { isDeepStrictEqual } from 'node:util';

import { patternReaches, type DataPoint } from '../../common/wire/data-point.ts';
import type { Measurement } from '../../common/wire/delivery.ts';
import type { MonitoringSpecifier } from '../../common/wire/monitoring-specifier.ts';
import { engineBoundsDefault, type EngineBounds } from './engine-bounds.ts';
import {
  boundToState,
  engineStateSchema,
  engineStateVersion,
  type EngineState,
  type RunState,
} from './engine-state.ts';
import { ImmediateRun } from './immediate-run.ts';
import type { Emit, Progress, RunCounts, RunIdentity, SpecifierRun } from './specifier-run.ts';
import { nextOnGrid } from './time-grid.ts';
import { WindowedRun } from './windowed-run.ts';

/** Which watermark tells that measurements are complete: the guest's, the host's own time, or both. */
const origins = ['guest', 'host', 'both'] as const;
type Origin = (typeof origins)[number];

/** What a VM wants to know, from which revision of its descriptor on. */
export interface MonitoringPlan {
  readonly descriptorRevision: number;
  readonly specifiers: readonly MonitoringSpecifier[];
  readonly latenessMaxMs: number;
}

/** Everything that moves an engine. Deliveries follow from the inputs and their order alone. */
export type EngineInput =
  /** Measurements of one row or probe, all of one time. */
  | { readonly kind: 'measurements'; readonly measurements: readonly Measurement[] }
  /** The guest says that nothing older will come; corrected to the host's time. */
  | { readonly kind: 'watermark'; readonly timeUs: number }
  /** The host's time; everything that the host measures itself has come up to it. */
  | { readonly kind: 'time'; readonly nowUs: number }
  /** The collector was away until `nowUs`: silence before it is no reason to close a window. */
  | { readonly kind: 'resumed'; readonly nowUs: number }
  /** The plan changes, each changed specifier from its next boundary on. */
  | { readonly kind: 'plan'; readonly plan: MonitoringPlan; readonly nowUs: number };

interface Run {
  readonly run: SpecifierRun;
  readonly origin: Origin;
}

const beginning = Number.NEGATIVE_INFINITY;

/**
 * The monitoring specifiers of one VM at work (federated-interfaces IV). Pure and deterministic: no clock, no chance,
 * no I/O. Its state can be written and read back between any two inputs without a difference in what it delivers.
 */
export class SpecifierEngine {
  readonly #bounds: EngineBounds;
  #runs: Run[] = [];
  #descriptorRevision = 0;
  #latenessUs = 0;
  #nowUs = beginning;
  #resumedUs = beginning;
  #guestWatermarkUs = beginning;
  readonly #completeUs: Record<Origin, number> = {
    guest: beginning,
    host: beginning,
    both: beginning,
  };
  /** The newest event time seen, so that a boundary is never set in the past. */
  #newestUs = beginning;
  /** Runs by data point, and whether any of them keeps something; emptied when runs change. */
  readonly #routes = new Map<DataPoint, readonly Run[]>();

  constructor(bounds: EngineBounds = engineBoundsDefault) {
    this.#bounds = bounds;
  }

  /**
   * An engine that goes on where `document` was written.
   * @throws ZodError when it is no state of a version that this program knows.
   */
  static restore(document: unknown, bounds: EngineBounds = engineBoundsDefault): SpecifierEngine {
    const state = engineStateSchema.parse(document);
    const engine = new SpecifierEngine(bounds);
    engine.#descriptorRevision = state.descriptorRevision;
    engine.#latenessUs = state.latenessMaxMs * 1_000;
    engine.#nowUs = state.nowUs ?? beginning;
    engine.#resumedUs = state.resumedUs ?? beginning;
    engine.#guestWatermarkUs = state.guestWatermarkUs ?? beginning;
    engine.#newestUs = state.newestUs ?? beginning;
    for (const origin of origins) {
      engine.#completeUs[origin] = state.completeUs[origin] ?? beginning;
    }
    engine.#runs = state.runs.map((run) => {
      const identity: RunIdentity = { ...run, fromUs: run.fromUs ?? beginning };
      return makeRun(pickIdentity(identity), bounds, run);
    });
    return engine;
  }

  /** The revision of the plan in force. */
  get descriptorRevision(): number {
    return this.#descriptorRevision;
  }

  /** Nothing older will come from the guest; null before its first watermark. */
  get guestWatermarkUs(): number | null {
    return boundToState(this.#guestWatermarkUs);
  }

  /** What could not be done as asked, over all runs that are still here. */
  get counts(): Readonly<RunCounts> {
    const total = { unplaced: 0, beyondDataPoints: 0, earlyTicks: 0 };
    for (const { run } of this.#runs) {
      total.unplaced += run.counts.unplaced;
      total.beyondDataPoints += run.counts.beyondDataPoints;
      total.earlyTicks += run.counts.earlyTicks;
    }
    return total;
  }

  /** Applies one input; `emit` gets the deliveries it brings about, in order. */
  apply(input: EngineInput, emit: Emit): void {
    switch (input.kind) {
      case 'measurements':
        this.#take(input.measurements, emit);
        return;
      case 'watermark':
        this.#guestWatermarkUs = Math.max(this.#guestWatermarkUs, input.timeUs);
        break;
      case 'time':
        this.#nowUs = Math.max(this.#nowUs, input.nowUs);
        break;
      case 'resumed':
        this.#resumedUs = input.nowUs;
        this.#nowUs = Math.max(this.#nowUs, input.nowUs);
        break;
      case 'plan':
        this.#nowUs = Math.max(this.#nowUs, input.nowUs);
        this.#plan(input.plan, input.nowUs);
        break;
    }
    this.#advance(emit);
  }

  /** True when the guest's watermarks can matter: some specifier of its data points keeps something. */
  get heedsWatermarks(): boolean {
    return this.#runs.some(({ run, origin }) => origin !== 'host' && !run.isStateless);
  }

  /** Whether this watermark makes something happen now; one that does not can wait for the next input. */
  isMovedBy(watermarkUs: number): boolean {
    return this.#runs.some(
      ({ run, origin }) =>
        origin !== 'host' &&
        (run.nextDueUs() <= watermarkUs ||
          run.lateDueUs(this.#progress(origin)) < Number.POSITIVE_INFINITY),
    );
  }

  /** True when these measurements leave nothing behind in the engine, whatever they are. */
  isStateless(dataPoint: DataPoint): boolean {
    return this.#route(dataPoint).every(({ run }) => run.isStateless);
  }

  /**
   * The host's time at which the next `time` input does something, as far as is known now; null: only another input can.
   */
  nextDueUs(): number | null {
    let dueUs = Number.POSITIVE_INFINITY;
    for (const { run, origin } of this.#runs) {
      const neededUs = run.nextDueUs();
      if (neededUs < Number.POSITIVE_INFINITY) {
        const bySilenceUs = Math.max(neededUs, this.#resumedUs) + this.#latenessUs;
        dueUs = Math.min(dueUs, origin === 'host' ? neededUs : bySilenceUs);
      }
      dueUs = Math.min(dueUs, run.lateDueUs(this.#progress(origin)));
    }
    return boundToState(dueUs);
  }

  /** What a restart, or the host that the VM moves to, needs to go on. */
  state(): EngineState {
    return {
      version: engineStateVersion,
      descriptorRevision: this.#descriptorRevision,
      latenessMaxMs: this.#latenessUs / 1_000,
      nowUs: boundToState(this.#nowUs),
      resumedUs: boundToState(this.#resumedUs),
      guestWatermarkUs: boundToState(this.#guestWatermarkUs),
      newestUs: boundToState(this.#newestUs),
      completeUs: {
        guest: boundToState(this.#completeUs.guest),
        host: boundToState(this.#completeUs.host),
        both: boundToState(this.#completeUs.both),
      },
      runs: this.#runs.map(({ run }) => run.state()),
    };
  }

  #take(measurements: readonly Measurement[], emit: Emit): void {
    const [first] = measurements;
    if (first === undefined) return;
    if (first.timeUs > this.#newestUs) this.#newestUs = first.timeUs;
    for (const { run, origin } of this.#runs) {
      if (first.timeUs < run.identity.fromUs || first.timeUs >= run.untilUs) continue;
      const own = measurements.filter(({ dataPoint }) =>
        this.#route(dataPoint).some((candidate) => candidate.run === run),
      );
      if (own.length > 0) run.take(own, this.#progress(origin), emit);
    }
  }

  #advance(emit: Emit): void {
    const forcedUs =
      this.#nowUs >= this.#resumedUs + this.#latenessUs
        ? this.#nowUs - this.#latenessUs
        : beginning;
    for (const origin of origins) {
      const completeUs = Math.max(this.#watermarkUs(origin), forcedUs);
      this.#completeUs[origin] = Math.max(this.#completeUs[origin], completeUs);
    }
    let endedCount = 0;
    for (const { run, origin } of this.#runs) {
      const progress = this.#progress(origin);
      run.advance(progress, emit);
      if (run.untilUs < Number.POSITIVE_INFINITY && run.isOver(progress)) endedCount += 1;
    }
    if (endedCount === 0) return;
    this.#routes.clear();
    this.#runs = this.#runs.filter(({ run, origin }) => {
      const hasEnded = run.untilUs < Number.POSITIVE_INFINITY;
      return !(hasEnded && run.isOver(this.#progress(origin)));
    });
  }

  #watermarkUs(origin: Origin): number {
    if (origin === 'guest') return this.#guestWatermarkUs;
    return origin === 'host' ? this.#nowUs : Math.min(this.#guestWatermarkUs, this.#nowUs);
  }

  #progress(origin: Origin): Progress {
    return {
      watermarkUs: this.#watermarkUs(origin),
      completeUs: this.#completeUs[origin],
      nowUs: this.#nowUs,
      latenessUs: this.#latenessUs,
    };
  }

  #route(dataPoint: DataPoint): readonly Run[] {
    const known = this.#routes.get(dataPoint);
    if (known !== undefined) return known;
    // Names come from the guest without end, so the cache starts over instead of growing.
    if (this.#routes.size >= this.#bounds.dataPointsMax) this.#routes.clear();
    const route = this.#runs.filter(({ run }) => run.matches(dataPoint));
    this.#routes.set(dataPoint, route);
    return route;
  }

  /**
   * Unchanged specifiers go on undisturbed. A changed one ends, and its new form begins, at the next boundary of the
   * new form; the first plan of all begins at the beginning, so that rows saved before it are delivered.
   */
  #plan(plan: MonitoringPlan, nowUs: number): void {
    const isFirst = this.#descriptorRevision === 0;
    if (isFirst) this.#resumedUs = nowUs;
    this.#descriptorRevision = plan.descriptorRevision;
    this.#latenessUs = plan.latenessMaxMs * 1_000;
    const inForce = this.#runs.filter(({ run }) => run.untilUs === Number.POSITIVE_INFINITY);
    const earliestUs = Math.max(
      nowUs,
      this.#nowUs,
      this.#newestUs,
      ...Object.values(this.#completeUs),
    );
    const kept = new Set<string>();
    for (const { run } of inForce) {
      const before = run.identity.specifier;
      const after = plan.specifiers.find(({ id }) => id === before.id);
      if (after !== undefined && isDeepStrictEqual(after, before)) kept.add(before.id);
      else run.untilUs = Math.max(run.identity.fromUs, boundaryAfter(earliestUs, after, before));
    }
    for (const specifier of plan.specifiers) {
      if (kept.has(specifier.id)) continue;
      const before = inForce.find(({ run }) => run.identity.specifier.id === specifier.id);
      const fromUs = before?.run.untilUs ?? boundaryAfter(earliestUs, specifier, undefined);
      const identity = {
        specifier,
        descriptorRevision: plan.descriptorRevision,
        fromUs: isFirst ? beginning : fromUs,
        createdUs: nowUs,
      };
      this.#runs.push(makeRun(identity, this.#bounds));
    }
    this.#routes.clear();
  }
}

/** The first boundary after `timeUs` of the new form's windows, else the old one's, else of their ticks. */
function boundaryAfter(
  timeUs: number,
  after: MonitoringSpecifier | undefined,
  before: MonitoringSpecifier | undefined,
): number {
  const intervalsMs = [
    after?.deliveryIntervalMs,
    before?.deliveryIntervalMs,
    after?.monitoringIntervalMs,
    before?.monitoringIntervalMs,
  ];
  const intervalMs = intervalsMs.find(
    (candidateMs) => candidateMs !== undefined && candidateMs > 0,
  );
  return nextOnGrid(timeUs, (intervalMs ?? 1) * 1_000);
}

function makeRun(identity: RunIdentity, bounds: EngineBounds, state?: RunState): Run {
  const { specifier } = identity;
  const origin = originOf(specifier.dataPoints);
  if (specifier.deliveryIntervalMs === 0) {
    const own = state?.kind === 'immediate' ? state : undefined;
    return { run: new ImmediateRun(identity, bounds, own), origin };
  }
  const own = state?.kind === 'windowed' ? state : undefined;
  return { run: new WindowedRun(identity, bounds, own), origin };
}

function pickIdentity(identity: RunIdentity): RunIdentity {
  const { specifier, descriptorRevision, fromUs, createdUs } = identity;
  return { specifier, descriptorRevision, fromUs, createdUs };
}

function originOf(pattern: string): Origin {
  const coversGuest = patternReaches(pattern, 'kpi') || patternReaches(pattern, 'encrypted');
  if (!coversGuest) return 'host';
  return patternReaches(pattern, 'infra') ? 'both' : 'guest';
}
