import { join } from 'node:path';

import { ControlClient } from '../../common/control/control-client.ts';
import { follow } from '../../common/control/follow.ts';
import {
  positionHeader,
  queryAnswerSchema,
  readingSchema,
  type Reading,
} from '../../common/control/reader-answer.ts';
import type { Output } from '../context.ts';
import {
  demoVms,
  type DemoDependencies,
  type DemoFederation,
  type DemoSite,
} from './demo-federation.ts';
import { DemoView, shownLagMs } from './demo-view.ts';
import { SavingApplication } from './saving-application.ts';
import { SeriesCheck, verdictOf, type Verdict } from './verdict.ts';

export interface DemoOptions {
  /** Saves a second and VM. */
  readonly ratePerSecond: number;
  /** How long applications save. */
  readonly durationMs: number;
  /** A site that is ended by kill -9 in the middle, and started again. */
  readonly kill: { readonly site: DemoSite; readonly downMs: number } | undefined;
}

const drawIntervalMs = 500;
/** A site is killed after this part of the time that is left beside its absence. */
const killAtRatio = 0.4;
/** How long what was saved last may take to arrive before the verdict counts it as lost. */
const settleMaxMs = 30_000;
const settlePollMs = 100;
const loadFile = 'load';

interface Series {
  readonly vm: string;
  readonly application: SavingApplication;
  stored: number;
  newest: Reading | undefined;
  lagMs: number | null;
}

/** Applications save, the primary site watches, a site may be killed; then the primary site's store is judged. */
export class DemoRun {
  readonly #deps: DemoDependencies;
  readonly #federation: DemoFederation;
  readonly #options: DemoOptions;
  readonly #view: DemoView;
  readonly #series: readonly Series[];
  readonly #reader: ControlClient;
  readonly #isUp: Record<DemoSite, boolean> = { source: true, intermediary: true, primary: true };
  #startedAtMs = 0;

  constructor(
    deps: DemoDependencies & { readonly output: Output },
    federation: DemoFederation,
    options: DemoOptions,
  ) {
    this.#deps = deps;
    this.#federation = federation;
    this.#options = options;
    this.#view = new DemoView(deps.output);
    this.#series = demoVms.map((vm) => ({
      vm,
      application: new SavingApplication(
        deps,
        join(federation.mountPath(vm), 'unencrypted', loadFile),
        options.ratePerSecond,
      ),
      stored: 0,
      newest: undefined,
      lagMs: null,
    }));
    this.#reader = new ControlClient({
      socketPath: federation.socket('primary'),
      peer: 'the primary site',
      startCommand: 'npm run demo',
    });
  }

  /** `interrupted` ends the saving early; the verdict comes all the same. */
  async run(interrupted: AbortSignal): Promise<Verdict> {
    const { clock } = this.#deps;
    this.#startedAtMs = clock.monotonicMs();
    const watching = new AbortController();
    const watch = this.#watch(watching.signal);
    const cancelDrawing = clock.every(drawIntervalMs, () => void this.#draw());
    try {
      for (const { application } of this.#series) application.start();
      await this.#act(interrupted);
      for (const { application } of this.#series) await application.stop();
      await this.#settle();
    } finally {
      cancelDrawing();
      watching.abort();
      await watch;
    }
    await this.#draw();
    return this.#judge();
  }

  /** What happens while applications save. */
  async #act(interrupted: AbortSignal): Promise<void> {
    const { kill, durationMs } = this.#options;
    if (kill === undefined) {
      await this.#sleep(durationMs, interrupted);
      return;
    }
    const restMs = Math.max(0, durationMs - kill.downMs);
    await this.#sleep(restMs * killAtRatio, interrupted);
    this.#isUp[kill.site] = false;
    await this.#federation.kill(kill.site);
    await this.#sleep(kill.downMs, interrupted);
    await this.#federation.restart(kill.site);
    this.#isUp[kill.site] = true;
    await this.#sleep(restMs * (1 - killAtRatio), interrupted);
  }

  async #sleep(durationMs: number, interrupted: AbortSignal): Promise<void> {
    await this.#deps.clock.sleep(durationMs, interrupted).catch(() => {});
  }

  async #watch(signal: AbortSignal): Promise<void> {
    let startPosition: string | undefined;
    const readings = follow(
      this.#reader,
      readingSchema,
      {
        signal,
        pathAfter: (newest) => {
          const after = newest === undefined ? startPosition : String(newest.position);
          return `/v1/watch?pattern=kpi/**${after === undefined ? '' : `&after=${after}`}`;
        },
        onHead: (headers) => {
          const position = headers[positionHeader];
          if (typeof position === 'string') startPosition ??= position;
        },
        onLost: () => {},
        onRestored: () => {},
      },
      this.#deps,
    );
    for await (const reading of readings) {
      const series = this.#series.find(({ vm }) => vm === reading.vm);
      if (series === undefined) continue;
      series.stored += 1;
      // What is fetched after an outage comes behind what is live.
      if (reading.timeUs < (series.newest?.timeUs ?? 0)) continue;
      series.newest = reading;
      series.lagMs = (this.#deps.clock.wallUs() - reading.timeUs) / 1_000;
    }
  }

  async #draw(): Promise<void> {
    const now = {
      nowUs: this.#deps.clock.wallUs(),
      saveIntervalMs: 1_000 / this.#options.ratePerSecond,
    };
    await this.#view.draw({
      elapsedMs: this.#deps.clock.monotonicMs() - this.#startedAtMs,
      isUp: this.#isUp,
      vms: this.#series.map(({ vm, application, stored, newest, lagMs }) => ({
        vm,
        saved: application.saved,
        stored,
        newest: newest === undefined ? null : JSON.stringify(newest.value),
        lagMs: shownLagMs(
          { saved: application.saved, stored, newestTimeUs: newest?.timeUs, lagMs },
          now,
        ),
      })),
    });
  }

  /** Until the primary site has as many as were saved, or time is up. */
  async #settle(): Promise<void> {
    const { clock } = this.#deps;
    const deadlineMs = clock.monotonicMs() + settleMaxMs;
    while (clock.monotonicMs() < deadlineMs) {
      if (this.#series.every(({ stored, application }) => stored >= application.saved)) return;
      await clock.sleep(settlePollMs);
    }
  }

  /** From the store, in the order of the measurements, whatever way they came. */
  async #judge(): Promise<Verdict> {
    const judged = [];
    for (const { vm, application } of this.#series) {
      const check = new SeriesCheck();
      const limit = application.saved + 1_000;
      const path = `/v1/query?pattern=kpi/${loadFile}/*&vm=${vm}&limit=${limit}`;
      const { readings } = await this.#reader.get(path, queryAnswerSchema);
      for (const { value } of readings) check.take(Number(value));
      judged.push({ sent: application.saved, check });
    }
    return verdictOf(judged);
  }
}
