import { fromJsonValue } from '../../common/control/json-value.ts';
import type { Reading } from '../../common/control/reader-answer.ts';
import type { Output } from '../context.ts';
import { formatTimeUs } from '../text/time.ts';
import { formatValue } from '../text/value.ts';

/**
 * Lines of readings under each other: the name column grows with the longest seen, up to a bound. Where several
 * specifiers deliver a data point, each line says by which it came: in a query always, in a watch from the second
 * specifier's first reading on. What is remembered is bounded by the series that the reader keeps.
 */
export class ReadingFormatter {
  readonly #output: Output;
  readonly #showsVm: boolean;
  /** By VM and data point: its only specifier so far, or null for several. */
  readonly #specifiers = new Map<string, string | null>();
  #nameWidth = 0;

  constructor(output: Output, options: { readonly showsVm: boolean }) {
    this.#output = output;
    this.#showsVm = options.showsVm;
  }

  /** Learns from a reading whose line may come later. */
  note({ vm, dataPoint, specifierId }: Reading): void {
    const key = `${vm} ${dataPoint}`;
    const known = this.#specifiers.get(key);
    if (known === undefined) this.#specifiers.set(key, specifierId);
    else if (known !== specifierId) this.#specifiers.set(key, null);
  }

  format(reading: Reading): string {
    const { style } = this.#output;
    this.note(reading);
    const isOneOfSeveral = this.#specifiers.get(`${reading.vm} ${reading.dataPoint}`) === null;
    const name = this.#showsVm ? `${reading.vm} ${reading.dataPoint}` : reading.dataPoint;
    this.#nameWidth = Math.min(nameWidthMax, Math.max(this.#nameWidth, name.length));
    const isScaled = this.#output.columns !== undefined;
    const value = formatValue(fromJsonValue(reading.value), reading.dataPoint, { isScaled });
    const parts = [
      style.dim(formatTimeUs(reading.timeUs)),
      style.cyan(name.padEnd(this.#nameWidth)),
      style.bold(value),
      style.dim(describeOrigin(reading, isOneOfSeveral)),
    ];
    return parts.join('  ').trimEnd();
  }
}

const nameWidthMax = 56;

/** What a reader must know to judge the value: how it came about. */
function describeOrigin(reading: Reading, namesSpecifier: boolean): string {
  const remarks: string[] = [];
  if (namesSpecifier) remarks.push(`by ${reading.specifierId}`);
  if (reading.format !== 'raw') remarks.push(`${reading.format} of ${reading.count ?? 0}`);
  if (reading.relativeErrorMax > 0) {
    remarks.push(`within ${(reading.relativeErrorMax * 100).toPrecision(1)} %`);
  }
  if (reading.skippedCount !== null && reading.skippedCount > 0) {
    remarks.push(`skipped ${reading.skippedCount}`);
  }
  if (reading.heldCount !== null && reading.heldCount > 0) {
    remarks.push(`held ${reading.heldCount}`);
  }
  if (reading.window !== null) {
    const { startMs, endMs } = reading.window;
    remarks.push(`[${formatTimeUs(startMs * 1_000)}, ${formatTimeUs(endMs * 1_000)})`);
  }
  if (reading.predicateState !== null) remarks.push(reading.predicateState);
  if (reading.held) remarks.push('held');
  if (reading.revision > 0) remarks.push(`revision ${reading.revision}`);
  return remarks.length === 0 ? '' : `(${remarks.join(', ')})`;
}
