import { mkdtempSync, rmSync } from 'node:fs';
import { chmod } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { eventually } from '../eventually.ts';
import {
  mountAgent,
  type MountedAgent,
  type MountedAgentOptions,
  type SavedRow,
} from '../mounted-agent.ts';
import { describeUnless, fuseObstacle, skipBecause } from '../requirements.ts';
import { findProgram, type TestProgram } from '../test-packages.ts';
import { mustRun, type ProgramResult, runProgram, type RunOptions } from './run-program.ts';

/** How long a row may take that a hold (`newNameHoldMs`, `publishHoldMs`) keeps from its table. */
const rowsTimeoutMs = 3_000;

export interface ProgramContext {
  /** Runs a bash script in `unencrypted/` that must succeed; `$SCRATCH` is a directory outside of the mount. */
  readonly sh: (script: string, options?: RunOptions) => Promise<ProgramResult>;
  /** The same, whatever its exit code. */
  readonly trySh: (script: string, options?: RunOptions) => Promise<ProgramResult>;
  /** PATH and LD_LIBRARY_PATH with which the programs asked for are found. */
  readonly environment: Readonly<Record<string, string>>;
}

/**
 * One mounted agent for a file of tests, and a ledger of what its tables must hold in the end: programs run one after the
 * other in one mount, and none may leave anything in a table but what its test says.
 */
export class KpiMount {
  readonly #expected = new Map<string, readonly SavedRow[]>();
  #agent: MountedAgent | undefined;
  #scratchPath: string | undefined;

  async start(options: MountedAgentOptions): Promise<void> {
    this.#scratchPath = mkdtempSync(join(tmpdir(), 'isobar-scratch-'));
    // Servers write and read here under users of their own.
    await chmod(this.#scratchPath, 0o777);
    this.#agent = await mountAgent(options);
  }

  async stop(): Promise<void> {
    await this.#agent?.[Symbol.asyncDispose]();
    if (this.#scratchPath !== undefined) {
      rmSync(this.#scratchPath, { recursive: true, force: true });
    }
  }

  get agent(): MountedAgent {
    if (this.#agent === undefined) throw new Error('the agent is not mounted yet');
    return this.#agent;
  }

  get scratchPath(): string {
    if (this.#scratchPath === undefined) throw new Error('the agent is not mounted yet');
    return this.#scratchPath;
  }

  /** `unencrypted/`, or a path below it. */
  path(file = ''): string {
    return join(this.agent.mountPath, 'unencrypted', file);
  }

  /** Asserts the rows of the table `unencrypted.db` has for the file, and enters them into the ledger. */
  async expectRows(file: string, expected: readonly SavedRow[]): Promise<void> {
    this.#expected.set(file, expected);
    await this.#rowsBecome(file, expected);
  }

  /**
   * Asserts that the database has the ledger's tables, with the ledger's rows, and nothing more. Restarts the agent first:
   * whatever it still held is then published.
   */
  async expectNothingElse(): Promise<void> {
    await this.agent.restart();
    expect(this.agent.tables('unencrypted')).toEqual([...this.#expected.keys()].toSorted());
    for (const [file, expected] of this.#expected) {
      expect({ file, rows: this.agent.rows(file) }).toEqual({ file, rows: expected });
    }
  }

  async #rowsBecome(file: string, expected: readonly SavedRow[]): Promise<void> {
    try {
      await eventually(
        () => {
          expect(this.agent.rows(file)).toEqual(expected);
          return true;
        },
        { timeoutMs: rowsTimeoutMs },
      );
    } catch {
      // Once more, for the difference in the report.
      expect({ file, rows: this.agent.rows(file) }).toEqual({ file, rows: expected });
    }
  }
}

export type ProgramTest = (
  title: string,
  programs: readonly TestProgram[],
  body: (context: ProgramContext) => Promise<void>,
) => void;

/**
 * A suite over one mount. `define` registers tests with `programTest`, which finds the programs first and skips, saying why,
 * where one can't be had. The last test of each suite compares the whole database with the ledger.
 */
export function describePrograms(
  title: string,
  define: (mount: KpiMount, programTest: ProgramTest) => void,
  options: MountedAgentOptions = {},
): void {
  describeUnless(fuseObstacle(), title, () => {
    const mount = new KpiMount();
    beforeAll(() => mount.start(options));
    afterAll(() => mount.stop());
    define(mount, (testTitle, programs, body) => {
      test(testTitle, async (context) => {
        const environment = await environmentFor(programs);
        if (typeof environment === 'string') {
          skipBecause(context, environment);
          return;
        }
        await body(contextOf(mount, environment));
      });
    });
    test('nothing else became a row', async () => {
      await mount.expectNothingElse();
    });
  });
}

const bashArguments = ['-euo', 'pipefail', '-c'];

function contextOf(mount: KpiMount, environment: Readonly<Record<string, string>>): ProgramContext {
  const optionsOf = (options: RunOptions): RunOptions => ({
    workingDirectory: mount.path(),
    ...options,
    environment: { ...environment, SCRATCH: mount.scratchPath, ...options.environment },
  });
  return {
    environment,
    sh: (script, options = {}) => mustRun('bash', [...bashArguments, script], optionsOf(options)),
    trySh: (script, options = {}) =>
      runProgram('bash', [...bashArguments, script], optionsOf(options)),
  };
}

/** The environment in which all of `programs` are found, or why one can't be had. */
async function environmentFor(
  programs: readonly TestProgram[],
): Promise<Record<string, string> | string> {
  const searchPaths: string[] = [];
  const libraryPaths: string[] = [];
  for (const program of programs) {
    const found = await findProgram(program);
    if (typeof found === 'string') return found;
    searchPaths.push(found.environment['PATH'] ?? '');
    libraryPaths.push(found.environment['LD_LIBRARY_PATH'] ?? '');
  }
  const libraryPath = libraryPaths.filter((path) => path !== '').join(delimiter);
  return {
    ...(searchPaths.length > 0 ? { PATH: searchPaths.join(delimiter) } : {}),
    ...(libraryPath === '' ? {} : { LD_LIBRARY_PATH: libraryPath }),
  };
}
