import { constants } from 'node:os';

import type { HeaderMode } from '../../common/csv/csv-labels.ts';
import {
  emptyLogger,
  type LoggerState,
  loggerState,
  rowsOfAppend,
} from '../../common/csv/csv-rows.ts';
import { encodeRecord } from '../../common/csv/encode-csv.ts';
import { decodeCsv } from '../../common/csv/parse-csv.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import type { AreaState } from './area-state.ts';
import type { HeldSave } from './held-saves.ts';
import type { TableRow } from './kpi-tables.ts';
import { opaqueRow, type Refusal, tableRefusal, tooLarge } from './refusal.ts';
import type { StoreOptions } from './store-options.ts';
import type { AppendRequest, FileId } from './store-request.ts';

const { EINVAL } = constants.errno;
const lineFeed = 10;

interface Lines {
  readonly rows: readonly TableRow[];
  readonly logger: LoggerState;
  readonly firstIsLabels: 'maybe' | 'yes' | 'no';
}

/**
 * Loggers: completed lines are rows at once. Held are only a first line that may yet turn out to be labels, and an
 * unfinished last line, which the handle's next append writes again and so replaces.
 */
export class LoggerApplier {
  readonly #state: AreaState;
  readonly #clock: Clock;
  readonly #options: StoreOptions;

  constructor(state: AreaState, deps: { readonly clock: Clock }, options: StoreOptions) {
    this.#state = state;
    this.#clock = deps.clock;
    this.#options = options;
  }

  append(request: AppendRequest, mode: HeaderMode): Refusal | undefined {
    const state = this.#state;
    const { file, lines } = request;
    const { path } = request.location;
    if (lines.byteLength > this.#options.fileBytesMax) return tooLarge(this.#options);
    const resends = request.resentBytes > 0;
    const unfinished = resends ? state.unfinished.get(request.handle) : undefined;
    const before = unfinished?.loggerBefore ?? this.#loggerOf(file, mode);
    const completeBytes = request.endsUnfinished
      ? lines.lastIndexOf(lineFeed) + 1
      : lines.byteLength;
    const complete = this.#read(lines.subarray(0, completeBytes), before, mode);
    if ('errno' in complete) return complete;
    const tail = this.#read(lines.subarray(completeBytes), complete.logger, mode);
    if ('errno' in tail) return tail;
    const refusal = tableRefusal(state, path, [...complete.rows, ...tail.rows]);
    if (refusal !== undefined) return refusal;

    state.begin();
    this.#settleHeld(request, complete, resends);
    if (request.filePath !== null) this.#store(request, request.filePath, complete.logger);
    this.#noteUnfinished(request, tail, complete.logger);
    this.#insertRows(request, complete, tail);
    return undefined;
  }

  /**
   * Brings the files that loggers left in `/appends` down to labels and newest row: at a start. What was appended has
   * been rows since.
   */
  compactAll(modeOf: (path: string) => HeaderMode): void {
    for (const file of this.#state.files.filesWithAppends()) {
      this.#state.begin();
      const logger = this.#loggerOf(file, modeOf(this.#state.files.path(file)));
      this.#state.files.setContent(file, this.#compacted(this.#state.files.content(file), logger));
    }
  }

  /**
   * Withdraws or publishes what is held of the file, now that more of it is here. Only a completed line decides whether
   * the first one is labels: an unfinished number may yet become text.
   */
  #settleHeld(request: AppendRequest, complete: Lines, replacesUnfinished: boolean): void {
    const dueMs = this.#clock.monotonicMs() + this.#options.publishHoldMs;
    for (const held of this.#state.held.values()) {
      if (held.file !== request.file) continue;
      const isOwn = held.handle === request.handle;
      const isReplaced = isOwn && replacesUnfinished && held.isAppend;
      if (isReplaced || (held.mayBeLabels && complete.firstIsLabels === 'yes')) {
        this.#state.withdraw(held);
      } else if (isOwn || (held.mayBeLabels && complete.rows.length > 0)) {
        this.#state.publish(held);
      } else if (held.mayBeLabels) this.#state.hold({ ...held, dueMs });
    }
  }

  /** Adds the bytes that are new to the file; labels and newest line take the place of what would be too much. */
  #store(request: AppendRequest, path: string, logger: LoggerState): void {
    const { files } = this.#state;
    const { file, lines, attributes } = request;
    const added = lines.subarray(request.resentBytes);
    files.append(file, path, attributes, added);
    if (files.sizeBytes(file) <= this.#options.fileBytesMax) return;
    files.setContent(file, this.#compacted(lines, logger));
  }

  #noteUnfinished(request: AppendRequest, tail: Lines, loggerBefore: LoggerState): void {
    const { undo, unfinished } = this.#state;
    if (tail.rows.length > 0) {
      undo.set(unfinished, request.handle, { file: request.file, loggerBefore });
    } else if (unfinished.has(request.handle)) {
      undo.delete(unfinished, request.handle);
    }
  }

  #insertRows(request: AppendRequest, complete: Lines, tail: Lines): void {
    const state = this.#state;
    const { path } = request.location;
    const { file, savedAtUs } = request;
    state.undo.set(state.loggers, file, tail.rows.length > 0 ? tail.logger : complete.logger);
    if (complete.rows.length > 0) {
      const place = state.insertRows(path, savedAtUs, complete.rows);
      if (complete.firstIsLabels === 'maybe') {
        const held = this.#held(request, complete.rows, place);
        state.hold({ ...held, handle: -request.handle, mayBeLabels: true });
      } else state.markPublished(place.throughRowId);
    }
    if (tail.rows.length === 0) return;
    const held = {
      ...this.#held(request, tail.rows, state.insertRows(path, savedAtUs, tail.rows)),
      mayBeLabels: tail.firstIsLabels === 'maybe',
      settlesLabels: tail.firstIsLabels === 'yes',
    };
    state.hold(held);
    if (!request.publishes) return;
    const labels = state.held.get(-request.handle);
    if (labels !== undefined) state.publishEnded(labels);
    state.publishEnded(held);
  }

  #held(request: AppendRequest, rows: readonly TableRow[], place: HeldSave['place']): HeldSave {
    return {
      handle: request.handle,
      file: request.file,
      table: request.location.path,
      savedAtUs: request.savedAtUs,
      rows,
      place,
      textBefore: '',
      isAppend: true,
      mayBeLabels: false,
      settlesLabels: false,
      newNameUntilMs: 0,
      dueMs: this.#clock.monotonicMs() + this.#options.publishHoldMs,
    };
  }

  #read(lines: Uint8Array, logger: LoggerState, mode: HeaderMode): Lines | Refusal {
    if (lines.byteLength === 0) return { rows: [], logger, firstIsLabels: 'no' };
    if (this.#state.area === 'encrypted') {
      return { rows: [opaqueRow(lines)], logger, firstIsLabels: 'no' };
    }
    const decoded = decodeCsv(lines);
    if (!decoded.isOk) return { errno: EINVAL, ...decoded.error };
    // Empty lines between a logger's lines are no rows.
    if (/^[\r\n]*$/.test(decoded.result)) return { rows: [], logger, firstIsLabels: 'no' };
    const read = rowsOfAppend(decoded.result, logger, mode, this.#options);
    if (!read.isOk) return { errno: EINVAL, ...read.error };
    return {
      rows: read.result.rows,
      logger: read.result.state,
      firstIsLabels: read.result.firstIsLabels,
    };
  }

  #loggerOf(file: FileId, mode: HeaderMode): LoggerState {
    if (this.#state.area === 'encrypted') return emptyLogger;
    return (
      this.#state.loggers.get(file) ??
      loggerState(this.#state.files.text(file), mode, this.#options)
    );
  }

  /** The label line, if there is one, and the newest line of `content`. */
  #compacted(content: Uint8Array, logger: LoggerState): Uint8Array {
    const newest = this.#newestLine(content);
    if (!logger.isLabelled || logger.first === undefined) return newest;
    return Buffer.concat([Buffer.from(encodeRecord(logger.first)), newest]);
  }

  /** From the last line's beginning, byte by byte as written: an unfinished one goes on in the next append. */
  #newestLine(content: Uint8Array): Uint8Array {
    const end = content.at(-1) === lineFeed ? content.byteLength - 2 : content.byteLength - 1;
    if (end < 0) return content;
    return content.slice(content.lastIndexOf(lineFeed, end) + 1);
  }
}
