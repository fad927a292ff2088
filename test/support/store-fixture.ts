import { join } from 'node:path';

import type { Area } from '../../common/channel/area.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { type Database, openDatabase } from '../../common/sqlite/database.ts';
import type { CrashPoint } from '../../guest-agent/store/crash-point.ts';
import { StoreEngine } from '../../guest-agent/store/store-engine.ts';
import { defaultStoreOptions, type StoreOptions } from '../../guest-agent/store/store-options.ts';
import type {
  AppendRequest,
  FileAttributes,
  SaveRequest,
} from '../../guest-agent/store/store-request.ts';
import { ManualClock } from './manual-clock.ts';
import { temporaryDirectory } from './temporary-directory.ts';

export const plainAttributes: FileAttributes = {
  mode: 0o100644,
  uid: 0,
  gid: 0,
  accessedAtUs: 1,
  modifiedAtUs: 1,
};

/** A save of `path`, published at once unless `over` says otherwise; file and handle come from `file`. */
export function saveOf(
  path: string,
  content: string | Uint8Array,
  over: Partial<SaveRequest> & { readonly area?: Area } = {},
): SaveRequest {
  const { area = 'unencrypted', ...rest } = over;
  return {
    kind: 'save',
    token: 1n,
    handle: 1,
    file: 2,
    location: { area, path },
    filePath: path,
    replaced: null,
    attributes: plainAttributes,
    content: typeof content === 'string' ? Buffer.from(content) : content,
    savedAtUs: 1_000,
    holdsNewName: false,
    publishes: true,
    ...rest,
  };
}

export function appendOf(
  path: string,
  lines: string,
  over: Partial<AppendRequest> & { readonly area?: Area } = {},
): AppendRequest {
  const { area = 'unencrypted', ...rest } = over;
  return {
    kind: 'append',
    token: 1n,
    writtenBytes: Buffer.byteLength(lines),
    handle: 1,
    file: 2,
    location: { area, path },
    filePath: path,
    attributes: plainAttributes,
    lines: Buffer.from(lines),
    resentBytes: 0,
    endsUnfinished: !lines.endsWith('\n'),
    publishes: false,
    savedAtUs: 1_000,
    ...rest,
  };
}

/** An engine on a directory of its own, with a clock that a test moves. */
export class StoreFixture implements Disposable {
  readonly clock = new ManualClock();
  readonly directory: ReturnType<typeof temporaryDirectory>;
  readonly options: StoreOptions;
  reachCrashPoint: (point: CrashPoint) => void = () => {};
  #engine: StoreEngine | undefined;

  constructor(over: Partial<StoreOptions> = {}) {
    this.directory = temporaryDirectory();
    this.options = {
      ...defaultStoreOptions,
      synchronous: 'OFF',
      directory: this.directory.path,
      ...over,
    };
  }

  get engine(): StoreEngine {
    this.#engine ??= new StoreEngine(
      {
        clock: this.clock,
        random: new SystemRandom(),
        log: silentLog,
        reachCrashPoint: (point) => {
          this.reachCrashPoint(point);
        },
      },
      this.options,
    );
    return this.#engine;
  }

  /** Closes the engine; the next use opens it again. */
  close(): void {
    this.#engine?.close();
    this.#engine = undefined;
  }

  databasePath(area: Area = 'unencrypted'): string {
    return join(this.directory.path, `${area}.db`);
  }

  /** Runs `use` on another connection, as a sqlite3 shell would. */
  withDatabase<Result>(use: (database: Database) => Result, area: Area = 'unencrypted'): Result {
    const database = openDatabase(this.databasePath(area), { busyMaxMs: 0 });
    try {
      return use(database);
    } finally {
      database.close();
    }
  }

  /** All rows of `table`, in order. */
  rows(table: string, area: Area = 'unencrypted'): readonly Record<string, unknown>[] {
    return this.withDatabase(
      (database) =>
        database
          .prepare<[], Record<string, unknown>>(`SELECT * FROM "${table}" ORDER BY row_id`)
          .all(),
      area,
    );
  }

  [Symbol.dispose](): void {
    this.close();
    this.directory[Symbol.dispose]();
  }
}
