import type { Cancel, Clock } from '../../common/runtime/clock.ts';
import { patternReaches } from '../../common/wire/data-point.ts';
import type { Measurement } from '../../common/wire/delivery.ts';
import type { MonitoringSpecifier } from '../../common/wire/monitoring-specifier.ts';
import type { Probe, ProbeReading } from './probe.ts';

/** How often the VM's specifiers want its infrastructure measured; null: not at all. 0 means as often as allowed. */
export function probeIntervalMs(
  specifiers: readonly MonitoringSpecifier[],
  probeIntervalMinMs: number,
): number | null {
  const intervalsMs = specifiers
    .filter(({ dataPoints }) => patternReaches(dataPoints, 'infra'))
    .map(({ monitoringIntervalMs }) => Math.max(monitoringIntervalMs, probeIntervalMinMs));
  return intervalsMs.length === 0 ? null : Math.min(...intervalsMs);
}

/** Reads one probe at an interval and passes on what it says; has no timer while nothing wants it. */
export class ProbeSchedule {
  readonly #clock: Clock;
  readonly #probe: Probe;
  readonly #take: (measurements: readonly Measurement[], reading: ProbeReading) => void;
  #cancel: Cancel | null = null;
  #intervalMs: number | null = null;

  constructor(
    deps: { readonly clock: Clock },
    probe: Probe,
    take: (measurements: readonly Measurement[], reading: ProbeReading) => void,
  ) {
    this.#clock = deps.clock;
    this.#probe = probe;
    this.#take = take;
  }

  /** null stops. */
  setInterval(intervalMs: number | null): void {
    if (intervalMs === this.#intervalMs) return;
    this.#intervalMs = intervalMs;
    this.#cancel?.();
    this.#cancel = null;
    if (intervalMs === null) return;
    this.#read();
    this.#cancel = this.#clock.every(intervalMs, () => {
      this.#read();
    });
  }

  #read(): void {
    const timeUs = this.#clock.wallUs();
    const reading = this.#probe.read();
    if (reading.kind === 'vanished') {
      this.#cancel?.();
      this.#cancel = null;
      this.#take([], reading);
      return;
    }
    const measurements = [...reading.values].map(([dataPoint, value]) => ({
      dataPoint,
      timeUs,
      uncertaintyUs: 0,
      value,
      held: false,
    }));
    this.#take(measurements, reading);
  }
}
