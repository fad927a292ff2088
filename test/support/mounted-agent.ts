import { spawn, execFileSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  accessSync,
  chmodSync,
  constants,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { z } from 'zod';

import type { Area } from '../../common/channel/area.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import {
  type Database,
  openDatabase,
  quoteIdentifier,
  type Synchronous,
} from '../../common/sqlite/database.ts';
import type { guestAgentConfigSchema } from '../../guest-agent/config.ts';
import { eventually } from './eventually.ts';

type GuestAgentConfigInput = z.input<typeof guestAgentConfigSchema>;

export interface MountedAgentOptions {
  readonly backend?: 'dev-fuse' | 'fuse-native';
  readonly synchronous?: Synchronous;
  /** Where the directory for the databases is made; the system's temporary directory by default. */
  readonly dataParentPath?: string;
  /** Laid over the configuration: bounds and hold times. */
  readonly config?: Partial<GuestAgentConfigInput>;
  /** A store to begin with, which is copied. */
  readonly storeOf?: string;
  /** Added to the agent's environment. */
  readonly environment?: Readonly<Record<string, string>>;
}

export type Column = number | bigint | string | Uint8Array | null;
/** The fields that one save had, by label; null is an empty field. */
export type SavedRow = Readonly<Record<string, Column>>;

/** A real agent on a temporary mount. Its databases are read through connections of our own, as `sqlite3` would. */
export interface MountedAgent extends AsyncDisposable {
  readonly mountPath: string;
  readonly dataPath: string;
  /** The process that serves the mount; its supervisor is another. */
  readonly pid: number;
  /** The end of what supervisor and agent have logged, warnings and worse. */
  readonly log: string;
  /** KPI tables of an area, in order of name; the agent's own (`/...`) are left out. */
  tables(area: Area): readonly string[];
  /**
   * Rows of `unencrypted.db` in the order of their saves; a held one that was overtaken has a later id than its
   * successor. Integers beyond 2^53 are bigint.
   */
  rows(table: string): readonly SavedRow[];
  /** Rows of `encrypted.db`. */
  encryptedRows(table: string): readonly SavedRow[];
  /** kill -9 of the process that serves the mount; its supervisor starts another. */
  kill(): Promise<void>;
  /** Stops supervisor and agent in an orderly way and starts them again on the same data and mount. */
  restart(whileStopped?: () => void): Promise<void>;
}

/** Starts a supervisor and its agent as processes of their own and resolves when the mount is served. */
export async function mountAgent(options: MountedAgentOptions = {}): Promise<MountedAgent> {
  const root = mkdtempSync(join(options.dataParentPath ?? tmpdir(), 'isobar-agent-'));
  // Programs under other users must reach the mount.
  chmodSync(root, 0o755);
  const agent = new AgentProcess(root, options);
  try {
    await agent.start();
  } catch (error) {
    await agent[Symbol.asyncDispose]();
    throw error;
  }
  return agent;
}

const startTimeoutMs = 20_000;
const stopTimeoutMs = 40_000;

class AgentProcess implements MountedAgent {
  readonly mountPath: string;
  readonly dataPath: string;
  readonly #root: string;
  readonly #options: MountedAgentOptions;
  #child: ChildProcess | undefined;
  #log = '';

  constructor(root: string, options: MountedAgentOptions) {
    this.#root = root;
    this.#options = options;
    this.mountPath = join(root, 'mount');
    this.dataPath = join(root, 'data');
    mkdirSync(this.mountPath);
    if (options.storeOf === undefined) mkdirSync(this.dataPath);
    else cpSync(options.storeOf, this.dataPath, { recursive: true });
  }

  get pid(): number {
    const pid = this.#child?.pid === undefined ? undefined : childrenOf(this.#child.pid)[0];
    if (pid === undefined) throw new Error('the agent is not running');
    return pid;
  }

  get log(): string {
    return this.#log;
  }

  async start(): Promise<void> {
    const configPath = join(this.#root, 'agent.json');
    writeFileSync(configPath, JSON.stringify(this.#config()));
    const child = spawn(
      process.execPath,
      [compiledEntry('test/support/mounted-agent-fixture.ts'), configPath],
      {
        stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
        env: { ...process.env, ...this.#options.environment },
      },
    );
    this.#child = child;
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#log = (this.#log + chunk.toString()).slice(-logCharactersMax);
    });
    const signal = AbortSignal.timeout(startTimeoutMs);
    const isReady = await Promise.race([
      once(child, 'message', { signal }).then(() => true),
      once(child, 'exit', { signal }).then(() => false),
    ]);
    if (!isReady) throw new Error(`the agent did not start:\n${this.#log}`);
  }

  tables(area: Area): readonly string[] {
    return this.#read(area, (database) =>
      database
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        .pluck()
        .all()
        .map(String)
        .filter((name) => !name.startsWith('/') && !name.startsWith('sqlite_')),
    );
  }

  rows(table: string): readonly SavedRow[] {
    return this.#rowsOf('unencrypted', table);
  }

  encryptedRows(table: string): readonly SavedRow[] {
    return this.#rowsOf('encrypted', table);
  }

  async kill(): Promise<void> {
    const killed = this.pid;
    process.kill(killed, 'SIGKILL');
    await eventually(() => !isRunning(killed), { timeoutMs: stopTimeoutMs });
  }

  async restart(whileStopped = () => {}): Promise<void> {
    await this.#end('SIGTERM');
    whileStopped();
    await this.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end('SIGTERM');
    if (isMounted(this.mountPath)) execFileSync('umount', ['-l', this.mountPath]);
    await rm(this.#root, { recursive: true, force: true });
  }

  #config(): GuestAgentConfigInput {
    const { backend, synchronous, config = {} } = this.#options;
    return {
      mountPath: this.mountPath,
      dataDirectory: this.dataPath,
      controlSocket: join(this.#root, 'control.sock'),
      channel: { address: `unix:${join(this.#root, 'channel.sock')}` },
      ...(backend === undefined ? {} : { fuseBackend: backend }),
      ...config,
      store: { ...(synchronous === undefined ? {} : { synchronous }), ...config.store },
    };
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child?.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill(signal);
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
    }, stopTimeoutMs);
    await exited;
    clearTimeout(timer);
  }

  #rowsOf(area: Area, table: string): readonly SavedRow[] {
    return this.#read(area, (database) => {
      const layouts = layoutsOf(database, table);
      const rows = database
        .prepare<[], Record<string, Column>>(
          `SELECT * FROM ${quoteIdentifier(table)} ORDER BY saved_at_us, row_id`,
        )
        .safeIntegers()
        .all();
      return rows.map((row) => savedRow(row, layouts));
    });
  }

  #read<Result>(area: Area, read: (database: Database) => Result): Result {
    const database = openDatabase(join(this.dataPath, `${area}.db`), { readonly: true });
    try {
      return read(database);
    } finally {
      database.close();
    }
  }
}

const logCharactersMax = 20_000;

interface Layout {
  readonly firstRowId: number;
  readonly columns: readonly string[];
}

/** Which columns the saves of a table had, newest first; others of its columns are no field of theirs. */
function layoutsOf(database: Database, table: string): readonly Layout[] {
  return database
    .prepare<[string], { firstRowId: number; columns: string }>(
      `SELECT first_row_id AS firstRowId, columns FROM "/layouts" WHERE table_name = ?
       ORDER BY first_row_id DESC`,
    )
    .all(table)
    .map(({ firstRowId, columns }) => ({ firstRowId, columns: JSON.parse(columns) as string[] }));
}

/** The fields of one save, by label. */
function savedRow(row: Readonly<Record<string, Column>>, layouts: readonly Layout[]): SavedRow {
  const rowId = Number(row['row_id']);
  const columns = layouts.find(({ firstRowId }) => firstRowId <= rowId)?.columns ?? [];
  const fields = columns.map((name): [string, Column] => {
    const value = row[name] ?? null;
    return [name, typeof value === 'bigint' ? safeNumber(value) : value];
  });
  return Object.fromEntries(fields);
}

function safeNumber(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function childrenOf(pid: number): readonly number[] {
  const list = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return list === '' ? [] : list.split(' ').map(Number);
}

function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

function isMounted(path: string): boolean {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .some((line) => line.split(' ')[1] === path);
}

/** Waits for a mount to answer again, as after kill -9 of a supervised agent. */
export async function mountAnswers(
  agent: MountedAgent,
  options: { readonly timeoutMs: number },
): Promise<void> {
  await eventually(() => {
    accessSync(join(agent.mountPath, 'unencrypted'), constants.R_OK);
    return true;
  }, options);
}
