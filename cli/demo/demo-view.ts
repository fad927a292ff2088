import type { Output } from '../context.ts';
import type { DemoSite } from './demo-federation.ts';

/** One VM as the view shows it. */
export interface VmLine {
  readonly vm: string;
  readonly saved: number;
  readonly stored: number;
  /** The newest value at the primary site; null before the first. */
  readonly newest: string | null;
  /** From the save to its arrival at the primary site, of the newest value. */
  readonly lagMs: number | null;
}

/**
 * From the save to its arrival. While some are saved that have not arrived, at least the age of the first of them, so that it
 * grows in an outage.
 */
export function shownLagMs(
  series: {
    readonly saved: number;
    readonly stored: number;
    /** Of the newest value that arrived. */
    readonly newestTimeUs: number | undefined;
    readonly lagMs: number | null;
  },
  { nowUs, saveIntervalMs }: { readonly nowUs: number; readonly saveIntervalMs: number },
): number | null {
  const { saved, stored, newestTimeUs, lagMs } = series;
  if (lagMs === null || newestTimeUs === undefined || stored >= saved) return lagMs;
  return Math.max(lagMs, (nowUs - newestTimeUs) / 1_000 - saveIntervalMs);
}

export interface DemoState {
  readonly elapsedMs: number;
  readonly isUp: Readonly<Record<DemoSite, boolean>>;
  readonly vms: readonly VmLine[];
}

const eraseLine = '\u001B[2K';

/** Draws the state: in place on a terminal, else as a line each time. */
export class DemoView {
  readonly #output: Output;
  #lineCount = 0;

  constructor(output: Output) {
    this.#output = output;
  }

  async draw(state: DemoState): Promise<void> {
    if (this.#output.columns === undefined) {
      await this.#output.line(plainLine(state));
      return;
    }
    const lines = this.#lines(state);
    const up = this.#lineCount === 0 ? '' : `\u001B[${this.#lineCount}A`;
    await this.#output.line(up + lines.map((line) => eraseLine + line).join('\n'));
    this.#lineCount = lines.length;
  }

  #lines({ elapsedMs, isUp, vms }: DemoState): string[] {
    const { style } = this.#output;
    const site = (name: DemoSite): string =>
      isUp[name] ? style.green(name) : style.red(`${name} (killed)`);
    const chain = `${site('source')} ──> ${site('intermediary')} ──> ${site('primary')}`;
    const header = `VM        SAVED    STORED    NEWEST       LAG`;
    return [
      `${chain}   ${(elapsedMs / 1_000).toFixed(0)} s`,
      style.dim(header),
      ...vms.map(({ vm, saved, stored, newest, lagMs }) =>
        [
          vm.padEnd(5),
          String(saved).padStart(9),
          String(stored).padStart(9),
          (newest ?? '-').padStart(9),
          formatLag(lagMs).padStart(9),
        ].join(' '),
      ),
    ];
  }
}

function plainLine({ elapsedMs, isUp, vms }: DemoState): string {
  const down = Object.entries(isUp)
    .filter(([, up]) => !up)
    .map(([site]) => `  ${site} killed`);
  const parts = vms.map(
    ({ vm, saved, stored, newest, lagMs }) =>
      `${vm} saved ${saved} stored ${stored} newest ${newest ?? '-'} lag ${formatLag(lagMs)}`,
  );
  return `${(elapsedMs / 1_000).toFixed(0)} s  ${parts.join('  ')}${down.join('')}`;
}

function formatLag(lagMs: number | null): string {
  return lagMs === null ? '-' : `${lagMs.toFixed(1)} ms`;
}
