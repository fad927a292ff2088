import { encryptedDataPoint, kpiDataPoint, type DataPoint } from '../../common/wire/data-point.ts';
import type { Measurement } from '../../common/wire/delivery.ts';
import { correctTime, unknownClock, type GuestClock } from './guest-clock.ts';
import type { GuestRow } from './guest-listener.ts';

/** Tables whose data point names are kept; beyond it they are made anew. */
const shapesMax = 4_096;

/** Turns rows into measurements: one for each column, all of the row's corrected time. */
export class RowMeasurements {
  /** Corrects the times of rows. */
  clock: GuestClock = unknownClock;
  /** Data points of a table by its column list, which the channel shares between rows of one shape. */
  readonly #shapes = new Map<string, Shape>();

  of(row: GuestRow): readonly Measurement[] {
    const dataPoints = this.#dataPoints(row);
    const { timeUs, uncertaintyUs } = correctTime(this.clock, row.savedAtUs);
    return dataPoints.map((dataPoint, index) => ({
      dataPoint,
      timeUs,
      uncertaintyUs,
      value: row.values[index] ?? null,
      held: false,
    }));
  }

  #dataPoints(row: GuestRow): readonly DataPoint[] {
    const key = row.area === 'encrypted' ? `/${row.table}` : row.table;
    const known = this.#shapes.get(key);
    if (known !== undefined && sameColumns(known.columns, row.columns)) return known.dataPoints;
    if (this.#shapes.size >= shapesMax) this.#shapes.clear();
    const dataPoints =
      row.area === 'encrypted'
        ? [encryptedDataPoint(row.table)]
        : row.columns.map((column) => kpiDataPoint(row.table, column));
    this.#shapes.set(key, { columns: row.columns, dataPoints });
    return dataPoints;
  }
}

interface Shape {
  readonly columns: readonly string[];
  readonly dataPoints: readonly DataPoint[];
}

function sameColumns(left: readonly string[], right: readonly string[]): boolean {
  if (left === right) return true;
  return left.length === right.length && left.every((column, index) => column === right[index]);
}
