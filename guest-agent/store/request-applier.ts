import { constants } from 'node:os';

import type { HeaderMode } from '../../common/csv/csv-labels.ts';
import { rowsOfSave } from '../../common/csv/csv-rows.ts';
import { decodeCsv } from '../../common/csv/parse-csv.ts';
import type { Clock } from '../../common/runtime/clock.ts';
import { compileDataPointPattern } from '../../common/wire/data-point.ts';
import type { AreaState } from './area-state.ts';
import type { HeldSave } from './held-saves.ts';
import type { TableRow } from './kpi-tables.ts';
import { LoggerApplier } from './logger-applier.ts';
import { opaqueRow, type Refusal, tableRefusal, tooLarge } from './refusal.ts';
import type { StoreOptions } from './store-options.ts';
import type {
  AppendRequest,
  FileId,
  PublishRequest,
  PutDirectoryRequest,
  PutFileRequest,
  RemoveRequest,
  RenameRequest,
  SaveRequest,
  StoreRequest,
} from './store-request.ts';

const { EINVAL } = constants.errno;

/**
 * What each request does to an area, inside the transaction that {@link AreaState} opens. Everything that can be wrong
 * with a save is found before its first write, so a refused one leaves no trace but the quarantine's; what SQLite
 * throws (a full disk, a lock) ends the whole transaction, and the caller decides how to go on.
 */
export class RequestApplier {
  readonly #state: AreaState;
  readonly #clock: Clock;
  readonly #options: StoreOptions;
  readonly #loggers: LoggerApplier;
  readonly #headerRules: readonly { matches: (path: string) => boolean; mode: HeaderMode }[];

  constructor(state: AreaState, deps: { readonly clock: Clock }, options: StoreOptions) {
    this.#state = state;
    this.#clock = deps.clock;
    this.#options = options;
    this.#loggers = new LoggerApplier(state, deps, options);
    this.#headerRules = options.headerRules.map(({ pattern, mode }) => ({
      matches: compileDataPointPattern(pattern),
      mode,
    }));
  }

  /** Brings what loggers left before the last stop into short form. */
  compactLoggers(): void {
    this.#loggers.compactAll((path) => this.#headerMode(path));
  }

  /** Applies one request; returns 0 or a negated errno. */
  apply(request: StoreRequest): number {
    switch (request.kind) {
      case 'save':
        return this.#save(request);
      case 'append':
        return this.#append(request);
      case 'publish':
        return this.#publish(request);
      case 'rename':
        return this.#rename(request);
      case 'remove':
        return this.#remove(request);
      case 'put-file':
      case 'put-directory':
      default:
        return this.#put(request);
    }
  }

  #put(request: PutFileRequest | PutDirectoryRequest): number {
    const isDirectory = request.kind === 'put-directory';
    this.#state.begin();
    this.#state.files.put(request.file, request.location.path, isDirectory, request.attributes);
    if (request.kind === 'put-file' && request.truncatedToBytes !== null) {
      this.#state.files.truncate(request.file, request.truncatedToBytes);
      this.#state.undo.delete(this.#state.loggers, request.file);
    }
    return 0;
  }

  #save(request: SaveRequest): number {
    const state = this.#state;
    const { path } = request.location;
    // Handle 0 is no handle: a temporary file that was renamed onto its name is published at once.
    const held = request.handle === 0 ? undefined : state.held.get(request.handle);
    const textBefore = held?.textBefore ?? this.#textBefore(request.replaced ?? request.file);
    const read = this.#read(path, request.content, textBefore);
    if ('errno' in read) return this.#refuse(path, request.savedAtUs, request.content, read);
    state.begin();
    if (held !== undefined) state.withdraw(held);
    this.#publishNewName(request);
    if (request.replaced !== null) this.#end(request.replaced);
    if (request.filePath !== null) {
      const { file, filePath, attributes, content } = request;
      state.files.replace(file, filePath, attributes, content, read.text);
    }
    if (state.loggers.has(request.file)) state.undo.delete(state.loggers, request.file);
    if (read.rows.length === 0) return 0;
    const place = state.insertRows(path, request.savedAtUs, read.rows);
    const nowMs = this.#clock.monotonicMs();
    if (request.handle === 0 || (request.publishes && !request.holdsNewName)) {
      state.markPublished(place.throughRowId);
      return 0;
    }
    const newNameUntilMs = request.holdsNewName ? nowMs + this.#options.newNameHoldMs : 0;
    state.hold({
      handle: request.handle,
      file: request.file,
      table: path,
      savedAtUs: request.savedAtUs,
      rows: read.rows,
      place,
      textBefore,
      isAppend: false,
      mayBeLabels: false,
      settlesLabels: false,
      newNameUntilMs,
      dueMs: request.publishes ? newNameUntilMs : nowMs + this.#options.publishHoldMs,
    });
    return 0;
  }

  /** A new file that is saved again is not a temporary one: its first save goes before the second. */
  #publishNewName({ file, handle }: SaveRequest): void {
    for (const save of this.#state.held.values()) {
      const isOfNewName = save.newNameUntilMs > 0 && save.handle !== handle;
      if (isOfNewName && save.file === file) this.#state.publish(save);
    }
  }

  #append(request: AppendRequest): number {
    const { path } = request.location;
    const refusal = this.#loggers.append(request, this.#headerMode(path));
    if (refusal === undefined) return 0;
    return this.#refuse(path, request.savedAtUs, request.lines, refusal);
  }

  #publish(request: PublishRequest): number {
    const state = this.#state;
    const isReleased = request.token === null;
    if (isReleased && state.unfinished.has(request.handle)) {
      state.undo.delete(state.unfinished, request.handle);
    }
    const labels = state.held.get(-request.handle);
    if (labels !== undefined) state.publishEnded(labels);
    const held = state.held.get(request.handle);
    if (held === undefined) return 0;
    if (isReleased && held.newNameUntilMs > this.#clock.monotonicMs()) {
      state.hold({ ...held, dueMs: held.newNameUntilMs });
    } else {
      state.publishEnded(held);
    }
    return 0;
  }

  #rename(request: RenameRequest): number {
    const state = this.#state;
    const path = request.to.path;
    const textBefore = request.replaced === null ? '' : this.#textBefore(request.replaced);
    const heldSaves = [...state.held.values()].filter(({ file }) => file === request.file);
    state.begin();
    if (request.saves) {
      const refusal =
        heldSaves.length > 0
          ? this.#moveHeld(heldSaves, path, textBefore)
          : this.#saveRenamed(request, textBefore);
      if (refusal !== undefined) {
        const content = state.files.content(request.file);
        return this.#refuse(path, request.savedAtUs, content, refusal);
      }
    } else {
      for (const held of heldSaves) state.publishEnded(held);
    }
    if (request.replaced !== null) this.#end(request.replaced);
    state.files.move(request.file, path);
    return 0;
  }

  /** The held saves of a renamed file become saves of the new name; published at once when their handle is gone. */
  #moveHeld(heldSaves: readonly HeldSave[], path: string, textBefore: string): Refusal | undefined {
    const state = this.#state;
    const moves: { readonly held: HeldSave; readonly rows: readonly TableRow[] }[] = [];
    for (const held of heldSaves) {
      const read = held.isAppend
        ? { rows: held.rows }
        : this.#read(path, state.files.content(held.file), textBefore);
      if ('errno' in read) return read;
      const refusal = tableRefusal(state, path, read.rows);
      if (refusal !== undefined) return refusal;
      moves.push({ held, rows: read.rows });
    }
    for (const { held, rows } of moves) {
      state.withdraw(held);
      if (rows.length === 0) continue;
      const place = state.insertRows(path, held.savedAtUs, rows);
      const isReleased = held.newNameUntilMs > 0 && held.dueMs === held.newNameUntilMs;
      if (isReleased) state.markPublished(place.throughRowId);
      else state.hold({ ...held, table: path, rows, place, textBefore, newNameUntilMs: 0 });
    }
    return undefined;
  }

  /** What a file held before it was renamed onto a KPI's name is a save of that name. */
  #saveRenamed(request: RenameRequest, textBefore: string): Refusal | undefined {
    const state = this.#state;
    const content = state.files.content(request.file);
    if (content.byteLength === 0) return undefined;
    const path = request.to.path;
    const read = this.#read(path, content, textBefore);
    if ('errno' in read) return read;
    if (read.rows.length > 0) {
      state.markPublished(state.insertRows(path, request.savedAtUs, read.rows).throughRowId);
    }
    return undefined;
  }

  #remove(request: RemoveRequest): number {
    this.#state.begin();
    this.#end(request.file);
    return 0;
  }

  /** A file ends: what is held of it is published, its table stays. */
  #end(file: FileId): void {
    const { held, files, loggers, undo } = this.#state;
    for (const save of held.values()) if (save.file === file) this.#state.publishEnded(save);
    files.remove(file);
    if (loggers.has(file)) undo.delete(loggers, file);
  }

  /** What a save of `file` is compared with. */
  #textBefore(file: FileId): string {
    return this.#state.area === 'encrypted' ? '' : this.#state.files.text(file);
  }

  /** The rows that `content` adds to the table at `path`, and its text unless it is opaque. */
  #read(
    path: string,
    content: Uint8Array,
    textBefore: string,
  ): { readonly rows: readonly TableRow[]; readonly text: string | undefined } | Refusal {
    if (content.byteLength > this.#options.fileBytesMax) return tooLarge(this.#options);
    if (this.#state.area === 'encrypted') {
      const rows = [opaqueRow(content)];
      return tableRefusal(this.#state, path, rows) ?? { rows, text: undefined };
    }
    const decoded = decodeCsv(content);
    if (!decoded.isOk) return { errno: EINVAL, ...decoded.error };
    const rows = rowsOfSave(decoded.result, textBefore, this.#headerMode(path), this.#options);
    if (!rows.isOk) return { errno: EINVAL, ...rows.error };
    return (
      tableRefusal(this.#state, path, rows.result) ?? { rows: rows.result, text: decoded.result }
    );
  }

  #headerMode(path: string): HeaderMode {
    return this.#headerRules.find(({ matches }) => matches(path))?.mode ?? 'auto';
  }

  #refuse(path: string, atUs: number, content: Uint8Array, refusal: Refusal): number {
    this.#state.begin();
    this.#state.quarantine.add(path, atUs, refusal, content);
    return -refusal.errno;
  }
}
