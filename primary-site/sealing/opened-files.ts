import { rowsOfSave } from '../../common/csv/csv-rows.ts';
import { decodeCsv } from '../../common/csv/parse-csv.ts';
import { StageCounters } from '../../common/runtime/stage-counters.ts';
import { looksLikeEnvelope, openEnvelope } from '../../common/sealing/cms-envelope.ts';
import type { RecipientKey } from '../../common/sealing/recipients.ts';
import { kpiDataPoint } from '../../common/wire/data-point.ts';
import type { Delivery, Measurement } from '../../common/wire/delivery.ts';

/** As the guest agent bounds a file in the clear by default. */
const csvLimits = { columnsMax: 500, fieldCharactersMax: 65_536 };
/** Values of one file; a file with more stays as it is. */
const valuesMax = 100_000;
const encryptedPrefix = 'encrypted/';

/**
 * Opens files of `encrypted/` that are CMS envelopes for one of our keys, and reads them as the guest agent reads a file
 * in the clear: `encrypted/users` becomes `kpi/users/<column>`. All else stays as it is: opaque bytes.
 */
export class OpenedFiles {
  /** Envelopes; `dropped` are not for us, `failed` are altered, not supported, no CSV or too many values. */
  readonly counters = new StageCounters();
  readonly #keys: readonly RecipientKey[];

  constructor(keys: readonly RecipientKey[]) {
    this.#keys = keys;
  }

  /** The same delivery where nothing in it opens. */
  open(delivery: Delivery): Delivery {
    if (this.#keys.length === 0 || delivery.kind !== 'raw') return delivery;
    if (!delivery.measurements.some(isEnvelope)) return delivery;
    return { ...delivery, measurements: delivery.measurements.flatMap((item) => this.#open(item)) };
  }

  #open(measurement: Measurement): readonly Measurement[] {
    const { value } = measurement;
    if (!(value instanceof Uint8Array) || !isEnvelope(measurement)) return [measurement];
    this.counters.accepted += 1;
    const opened = openEnvelope(value, this.#keys);
    if (!opened.ok) {
      if (opened.problem.code === 'not-for-us') this.counters.dropped += 1;
      else this.counters.failed += 1;
      return [measurement];
    }
    const values = valuesOf(opened.content, measurement);
    if (values === undefined) {
      this.counters.failed += 1;
      return [measurement];
    }
    this.counters.forwarded += 1;
    return values;
  }
}

function isEnvelope({ dataPoint, value }: Measurement): boolean {
  return (
    value instanceof Uint8Array && dataPoint.startsWith(encryptedPrefix) && looksLikeEnvelope(value)
  );
}

/** Undefined when the content is no CSV. */
function valuesOf(
  content: Uint8Array,
  measurement: Measurement,
): readonly Measurement[] | undefined {
  const text = decodeCsv(content);
  if (!text.isOk) return undefined;
  const rows = rowsOfSave(text.result, '', 'auto', csvLimits);
  if (!rows.isOk) return undefined;
  if (rows.result.reduce((sum, { values }) => sum + values.length, 0) > valuesMax) return undefined;
  const file = decodeURIComponent(measurement.dataPoint.slice(encryptedPrefix.length));
  return rows.result.flatMap(({ columns, values }) =>
    columns.map((column, index) => ({
      ...measurement,
      dataPoint: kpiDataPoint(file, column),
      value: values[index] ?? null,
    })),
  );
}
