import type { ByteReader } from './byte-reader.ts';
import type { ByteWriter } from './byte-writer.ts';
import type {
  Delivery,
  PredicateState,
  ProcessedDelivery,
  RawDelivery,
  Window,
} from './delivery.ts';
import { readEpoch, writeEpoch } from './epoch-codec.ts';
import type { EpochOpened, FrameRecord, Lost, Status, VmState } from './frame.ts';
import { MeasurementReader, MeasurementWriter } from './measurement-codec.ts';
import type { Format } from './monitoring-specifier.ts';
import { StringTableReader, StringTableWriter } from './string-table.ts';

/*
 * A record is one byte of tag and its fields in the order written here. The lists below are part of the format:
 * a value is sent as its position, so they are only ever added to.
 */
const recordTags = {
  'epoch-opened': 0,
  'epoch-closed': 1,
  lost: 2,
  status: 3,
  raw: 4,
  processed: 5,
} as const;
const epochReasons: readonly EpochOpened['reason'][] = [
  'created',
  'generation-changed',
  'moved',
  'store-lost',
  'signing-changed',
];
const lossPlaces: readonly Lost['where'][] = ['guest-store', 'stream-log'];
const vmStates: readonly VmState[] = ['running', 'suspended', 'silent', 'dead', 'unknown'];
const predicateStates: readonly (PredicateState | null)[] = [
  null,
  'initial',
  'entering',
  'inside',
  'leaving',
];
const processedFormats: readonly Exclude<Format, 'raw'>[] = ['min', 'max', 'mean', 'median'];

/** Writes the records of one frame; times are sent as distances from the frame's own. */
export class RecordWriter {
  readonly #writer: ByteWriter;
  readonly #strings = new StringTableWriter();
  readonly #measurements: MeasurementWriter;
  readonly #producedAtUs: number;

  constructor(writer: ByteWriter, producedAtUs: number) {
    this.#writer = writer;
    this.#producedAtUs = producedAtUs;
    this.#measurements = new MeasurementWriter(this.#strings, producedAtUs);
  }

  write(record: FrameRecord): void {
    switch (record.kind) {
      case 'delivery':
        this.#writeDelivery(record.delivery);
        return;
      case 'epoch-opened':
        this.#writeEpochOpened(record);
        return;
      case 'epoch-closed':
        this.#writer.byte(recordTags['epoch-closed']);
        this.#writer.varint(record.lastSeq);
        return;
      case 'lost':
        this.#writeLost(record);
        return;
      case 'status':
        this.#writeStatus(record);
        return;
    }
  }

  #writeEpochOpened(record: EpochOpened): void {
    const writer = this.#writer;
    writer.byte(recordTags['epoch-opened']);
    this.#optional(record.predecessor, (predecessor) => {
      writeEpoch(writer, predecessor.epoch);
      this.#optional(predecessor.lastSeq, (lastSeq) => {
        writer.varint(lastSeq);
      });
    });
    this.#optional(record.generation, (generation) => {
      writer.text(generation);
    });
    writer.byte(epochReasons.indexOf(record.reason));
  }

  #writeLost(record: Lost): void {
    const writer = this.#writer;
    const seq = (value: number): void => {
      writer.varint(value);
    };
    writer.byte(recordTags.lost);
    writer.byte(lossPlaces.indexOf(record.where));
    writer.varint(record.count);
    this.#optional(record.fromSeq, seq);
    this.#optional(record.throughSeq, seq);
    writer.text(record.reason);
  }

  #writeStatus(record: Status): void {
    const writer = this.#writer;
    writer.byte(recordTags.status);
    writer.byte(vmStates.indexOf(record.vmState));
    this.#optional(record.head, (head) => {
      writeEpoch(writer, head.epoch);
      writer.varint(head.seq);
    });
    this.#optional(record.watermarkUs, (watermarkUs) => {
      writer.signedVarint(watermarkUs - this.#producedAtUs);
    });
  }

  #writeDelivery(delivery: Delivery): void {
    const writer = this.#writer;
    writer.byte(recordTags[delivery.kind]);
    this.#strings.reference(writer, delivery.specifierId);
    writer.varint(delivery.descriptorRevision);
    this.#optional(delivery.window, ({ startMs, endMs }) => {
      writer.varint(startMs);
      writer.varint(endMs - startMs);
    });
    writer.varint(delivery.revision);
    writer.byte(predicateStates.indexOf(delivery.predicateState));
    if (delivery.kind === 'raw') {
      this.#measurements.write(writer, delivery.measurements);
      return;
    }
    this.#strings.reference(writer, delivery.dataPoint);
    writer.byte(processedFormats.indexOf(delivery.format));
    this.#optional(delivery.value, (value) => {
      writer.float64(value);
    });
    writer.signedVarint(delivery.timeUs - this.#producedAtUs);
    writer.varint(delivery.count);
    writer.varint(delivery.skippedCount);
    this.#optional(delivery.heldCount ?? null, (heldCount) => {
      writer.varint(heldCount);
    });
    this.#optional(delivery.relativeErrorMax ?? null, (relativeErrorMax) => {
      writer.float64(relativeErrorMax);
    });
  }

  #optional<Field>(field: Field | null, write: (field: Field) => void): void {
    this.#writer.byte(field === null ? 0 : 1);
    if (field !== null) write(field);
  }
}

/** Reads the records of one frame, in order. All methods throw MalformedBytes. */
export class RecordReader {
  readonly #reader: ByteReader;
  readonly #strings = new StringTableReader();
  readonly #measurements: MeasurementReader;
  readonly #producedAtUs: number;

  constructor(reader: ByteReader, producedAtUs: number) {
    this.#reader = reader;
    this.#producedAtUs = producedAtUs;
    this.#measurements = new MeasurementReader(this.#strings, producedAtUs);
  }

  read(): FrameRecord {
    const tag = this.#reader.byte();
    switch (tag) {
      case recordTags.raw:
        return { kind: 'delivery', delivery: this.#readRaw() };
      case recordTags.processed:
        return { kind: 'delivery', delivery: this.#readProcessed() };
      case recordTags['epoch-opened']:
        return this.#readEpochOpened();
      case recordTags['epoch-closed']:
        return { kind: 'epoch-closed', lastSeq: this.#reader.varint() };
      case recordTags.lost:
        return this.#readLost();
      case recordTags.status:
        return this.#readStatus();
      default:
        return this.#reader.fail('unknown record');
    }
  }

  #readEpochOpened(): EpochOpened {
    const reader = this.#reader;
    const predecessor = this.#optional(() => ({
      epoch: readEpoch(reader),
      lastSeq: this.#optional(() => reader.varint()),
    }));
    const generation = this.#optional(() => reader.text());
    return { kind: 'epoch-opened', predecessor, generation, reason: this.#oneOf(epochReasons) };
  }

  #readLost(): Lost {
    const reader = this.#reader;
    return {
      kind: 'lost',
      where: this.#oneOf(lossPlaces),
      count: reader.varint(),
      fromSeq: this.#optional(() => reader.varint()),
      throughSeq: this.#optional(() => reader.varint()),
      reason: reader.text(),
    };
  }

  #readStatus(): Status {
    const reader = this.#reader;
    return {
      kind: 'status',
      vmState: this.#oneOf(vmStates),
      head: this.#optional(() => ({ epoch: readEpoch(reader), seq: reader.varint() })),
      watermarkUs: this.#optional(() => this.#timeUs()),
    };
  }

  #readRaw(): RawDelivery {
    return {
      kind: 'raw',
      ...this.#readDeliveryStart(),
      measurements: this.#measurements.read(this.#reader),
    };
  }

  #readProcessed(): ProcessedDelivery {
    const reader = this.#reader;
    const processed: ProcessedDelivery = {
      kind: 'processed',
      ...this.#readDeliveryStart(),
      dataPoint: this.#measurements.readDataPoint(reader),
      format: this.#oneOf(processedFormats),
      value: this.#optional(() => reader.float64()),
      timeUs: this.#timeUs(),
      count: reader.varint(),
      skippedCount: reader.varint(),
    };
    const heldCount = this.#optional(() => reader.varint());
    const relativeErrorMax = this.#optional(() => reader.float64());
    return {
      ...processed,
      ...(heldCount === null ? {} : { heldCount }),
      ...(relativeErrorMax === null ? {} : { relativeErrorMax }),
    };
  }

  #readDeliveryStart(): Omit<RawDelivery, 'kind' | 'measurements'> {
    const reader = this.#reader;
    return {
      specifierId: this.#strings.reference(reader),
      descriptorRevision: reader.varint(),
      window: this.#optional(() => this.#readWindow()),
      revision: reader.varint(),
      predicateState: this.#oneOf(predicateStates),
    };
  }

  #readWindow(): Window {
    const startMs = this.#reader.varint();
    const endMs = startMs + this.#reader.varint();
    if (!Number.isSafeInteger(endMs)) this.#reader.fail('window exceeds 2^53 - 1');
    return { startMs, endMs };
  }

  #timeUs(): number {
    const timeUs = this.#producedAtUs + this.#reader.signedVarint();
    return Number.isSafeInteger(timeUs) ? timeUs : this.#reader.fail('time exceeds 2^53 - 1');
  }

  #optional<Field>(read: () => Field): Field | null {
    const mark = this.#reader.byte();
    if (mark > 1) this.#reader.fail('neither absent nor present');
    return mark === 1 ? read() : null;
  }

  #oneOf<Choice>(choices: readonly Choice[]): Choice {
    const choice = choices[this.#reader.byte()];
    return choice === undefined ? this.#reader.fail('unknown choice') : choice;
  }
}
