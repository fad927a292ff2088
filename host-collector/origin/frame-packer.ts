import { compileDataPointPattern } from '../../common/wire/data-point.ts';
import type { Delivery, Measurement } from '../../common/wire/delivery.ts';
import type { FrameRecord } from '../../common/wire/frame.ts';
import type { Value } from '../../common/wire/value.ts';

/** A frame is closed once its records are estimated at this; one record alone may be larger. */
export const frameBytesTarget = 256 * 1_024;

/** Collects the records of one commit and hands them on in frames of bounded size. */
export class FramePacker {
  readonly #append: (records: readonly FrameRecord[]) => void;
  #records: FrameRecord[] = [];
  #bytes = 0;

  constructor(append: (records: readonly FrameRecord[]) => void) {
    this.#append = append;
  }

  add(record: FrameRecord): void {
    this.#records.push(record);
    this.#bytes += estimateBytes(record);
    if (this.#bytes >= frameBytesTarget) this.flush();
  }

  flush(): void {
    if (this.#records.length === 0) return;
    this.#append(this.#records);
    this.#records = [];
    this.#bytes = 0;
  }
}

const recordBytes = 64;
const measurementBytes = 12;

function estimateBytes(record: FrameRecord): number {
  if (record.kind !== 'delivery' || record.delivery.kind !== 'raw') return recordBytes;
  let bytes = recordBytes;
  for (const { value } of record.delivery.measurements) {
    bytes += measurementBytes + valueBytes(value);
  }
  return bytes;
}

function valueBytes(value: Value): number {
  return typeof value === 'string' || value instanceof Uint8Array ? value.length : 0;
}

/** What of a delivery intermediaries may see on the status stream. */
export class VisibleDeliveries {
  readonly #patterns: readonly ((dataPoint: string) => boolean)[];

  constructor(patterns: readonly string[]) {
    this.#patterns = patterns.map((pattern) => compileDataPointPattern(pattern));
  }

  /** The delivery reduced to visible data points; null when none is. */
  of(delivery: Delivery): Delivery | null {
    if (this.#patterns.length === 0) return null;
    if (delivery.kind === 'processed') return this.#isVisible(delivery.dataPoint) ? delivery : null;
    const measurements = delivery.measurements.filter((item: Measurement) =>
      this.#isVisible(item.dataPoint),
    );
    return measurements.length === 0 ? null : { ...delivery, measurements };
  }

  #isVisible(dataPoint: string): boolean {
    return this.#patterns.some((matches) => matches(dataPoint));
  }
}
