import type { ByteReader } from './byte-reader.ts';
import type { ByteWriter } from './byte-writer.ts';
import { parseDataPoint, type DataPoint } from './data-point.ts';
import type { Measurement } from './delivery.ts';
import type { StringTableReader, StringTableWriter } from './string-table.ts';
import { readValue, writeValue } from './value-codec.ts';

/*
 * Measurements that follow each other with the same time, uncertainty and held mark are a row, as one save of a file
 * is. The list of a row's data points is its shape; a frame names each shape once.
 *
 *   rows    varint
 *   row     shape reference, flags, signed varint time since the row before, [varint uncertainty], values
 *   shape   0 and its data points (varint count, string references), or n for the n-th one defined before
 *   flags   1 held, 2 uncertainty differs from the row before
 */
const flagHeld = 1;
const flagUncertainty = 2;
const flagsMax = flagHeld | flagUncertainty;
const shapeCountMax = 65_536;

/** One per frame: shapes, strings and the time that deltas count from go on over its deliveries. */
export class MeasurementWriter {
  readonly #strings: StringTableWriter;
  readonly #shapes = new Map<string, number>();
  #timeUs: number;
  #uncertaintyUs = 0;

  constructor(strings: StringTableWriter, startUs: number) {
    this.#strings = strings;
    this.#timeUs = startUs;
  }

  write(writer: ByteWriter, measurements: readonly Measurement[]): void {
    const rows = splitRows(measurements);
    writer.varint(rows.length);
    for (const row of rows) this.#writeRow(writer, row);
  }

  #writeRow(writer: ByteWriter, row: readonly [Measurement, ...Measurement[]]): void {
    const { timeUs, uncertaintyUs, held } = row[0];
    const hasUncertainty = uncertaintyUs !== this.#uncertaintyUs;
    this.#writeShape(writer, row);
    writer.byte((held ? flagHeld : 0) | (hasUncertainty ? flagUncertainty : 0));
    writer.signedVarint(timeUs - this.#timeUs);
    if (hasUncertainty) writer.varint(uncertaintyUs);
    for (const measurement of row) writeValue(writer, measurement.value);
    this.#timeUs = timeUs;
    this.#uncertaintyUs = uncertaintyUs;
  }

  #writeShape(writer: ByteWriter, row: readonly Measurement[]): void {
    // No data point contains a blank: names are percent-encoded.
    const key = row.map(({ dataPoint }) => dataPoint).join(' ');
    const known = this.#shapes.get(key);
    if (known !== undefined) {
      writer.varint(known);
      return;
    }
    writer.byte(0);
    writer.varint(row.length);
    for (const { dataPoint } of row) this.#strings.reference(writer, dataPoint);
    if (this.#shapes.size < shapeCountMax) this.#shapes.set(key, this.#shapes.size + 1);
  }
}

/** Reads what MeasurementWriter wrote; one per frame. */
export class MeasurementReader {
  readonly #strings: StringTableReader;
  readonly #shapes: (readonly DataPoint[])[] = [];
  readonly #dataPoints = new Map<string, DataPoint>();
  #timeUs: number;
  #uncertaintyUs = 0;

  constructor(strings: StringTableReader, startUs: number) {
    this.#strings = strings;
    this.#timeUs = startUs;
  }

  /** @throws MalformedBytes */
  read(reader: ByteReader): Measurement[] {
    const rowCount = reader.varint();
    if (rowCount > reader.remaining) reader.fail('more rows than bytes');
    const measurements: Measurement[] = [];
    for (let index = 0; index < rowCount; index += 1) this.#readRow(reader, measurements);
    return measurements;
  }

  #readRow(reader: ByteReader, measurements: Measurement[]): void {
    const shape = this.#readShape(reader);
    const flags = reader.byte();
    if (flags > flagsMax) reader.fail('unknown flags');
    const timeUs = this.#timeUs + reader.signedVarint();
    if (!Number.isSafeInteger(timeUs)) reader.fail('time exceeds 2^53 - 1');
    const uncertaintyUs = (flags & flagUncertainty) === 0 ? this.#uncertaintyUs : reader.varint();
    const held = (flags & flagHeld) !== 0;
    for (const dataPoint of shape) {
      measurements.push({ dataPoint, timeUs, uncertaintyUs, value: readValue(reader), held });
    }
    this.#timeUs = timeUs;
    this.#uncertaintyUs = uncertaintyUs;
  }

  #readShape(reader: ByteReader): readonly DataPoint[] {
    const reference = reader.varint();
    if (reference > 0) {
      const known = this.#shapes[reference - 1];
      if (known === undefined) reader.fail('names a shape that is not defined');
      return known;
    }
    const count = reader.varint();
    if (count === 0 || count > reader.remaining) reader.fail('shape without values');
    const shape = Array.from({ length: count }, () => this.readDataPoint(reader));
    if (this.#shapes.length < shapeCountMax) this.#shapes.push(shape);
    return shape;
  }

  /** @throws MalformedBytes when the string is no data point. */
  readDataPoint(reader: ByteReader): DataPoint {
    const text = this.#strings.reference(reader);
    const known = this.#dataPoints.get(text);
    if (known !== undefined) return known;
    const dataPoint = parseDataPoint(text);
    if (dataPoint === undefined) reader.fail('not a data point');
    this.#dataPoints.set(text, dataPoint);
    return dataPoint;
  }
}

function splitRows(measurements: readonly Measurement[]): [Measurement, ...Measurement[]][] {
  const rows: [Measurement, ...Measurement[]][] = [];
  let row: [Measurement, ...Measurement[]] | undefined;
  for (const measurement of measurements) {
    if (
      row !== undefined &&
      row[0].timeUs === measurement.timeUs &&
      row[0].uncertaintyUs === measurement.uncertaintyUs &&
      row[0].held === measurement.held
    ) {
      row.push(measurement);
    } else {
      row = [measurement];
      rows.push(row);
    }
  }
  return rows;
}
