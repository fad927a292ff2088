import { mkdirSync, mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import { eventually } from '../test/support/eventually.ts';
import { mountAgent } from '../test/support/mounted-agent.ts';
import { compileC } from '../test/support/programs/compile-c.ts';
import { mustRun, startProgram } from '../test/support/programs/run-program.ts';

/** What a commit waits for. `memory`: the database lies on tmpfs and nothing is synchronized. */
export const durabilities = ['FULL', 'NORMAL', 'memory'] as const;
export type Durability = (typeof durabilities)[number];

/** Something that files can be saved into. */
export interface SaveTarget {
  readonly name: string;
  /** @throws Error when it can't be had on this machine; the message says why. */
  open(durability: Durability): Promise<OpenSaveTarget>;
}

export interface OpenSaveTarget extends AsyncDisposable {
  readonly directory: string;
}

const memoryPath = '/dev/shm';
const startTimeoutMs = 20_000;

/** The targets in the order of the report; `diskPath` is where the databases of FULL and NORMAL lie. */
export function saveTargets(diskPath: string): readonly SaveTarget[] {
  return [
    agentTarget('dev-fuse', diskPath),
    agentTarget('fuse-native', diskPath),
    { name: 'C libfuse3', open: (durability) => openLibfuse(durability, diskPath) },
    { name: 'tmpfs', open: () => Promise.resolve(openTmpfs()) },
  ];
}

/** The ceiling: no FUSE and no durability, whatever is asked. */
function openTmpfs(): OpenSaveTarget {
  const directory = mkdtempSync(join(memoryPath, 'isobar-bench-'));
  return {
    directory,
    [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }),
  };
}

function agentTarget(backend: 'dev-fuse' | 'fuse-native', diskPath: string): SaveTarget {
  return {
    name: backend,
    open: async (durability) => {
      const agent = await mountAgent({
        backend,
        dataParentPath: durability === 'memory' ? memoryPath : diskPath,
        synchronous: durability === 'memory' ? 'OFF' : durability,
      });
      return {
        directory: join(agent.mountPath, 'unencrypted'),
        [Symbol.asyncDispose]: () => agent[Symbol.asyncDispose](),
      };
    },
  };
}

/** The peer: bench/libfuse/save-to-sqlite.c. */
async function openLibfuse(durability: Durability, diskPath: string): Promise<OpenSaveTarget> {
  const flags = await mustRun('pkg-config', ['--cflags', '--libs', 'fuse3', 'sqlite3']);
  const program = await compileC('bench/libfuse/save-to-sqlite.c', [
    ...flags.stdout.trim().split(/\s+/),
    '-lpthread',
  ]);
  const parent = durability === 'memory' ? memoryPath : diskPath;
  const root = mkdtempSync(join(parent, 'isobar-bench-libfuse-'));
  const directory = join(root, 'mount');
  mkdirSync(directory);
  const peer = startProgram(program, [
    directory,
    join(root, 'saves.db'),
    durability === 'memory' ? 'OFF' : durability,
  ]);
  const end = async (): Promise<void> => {
    await peer[Symbol.asyncDispose]();
    await rm(root, { recursive: true, force: true });
  };
  try {
    await eventually(() => peer.output().includes('mounted'), { timeoutMs: startTimeoutMs });
  } catch (cause) {
    await end();
    throw new Error(`the libfuse peer did not start: ${peer.output()}`, { cause });
  }
  return { directory, [Symbol.asyncDispose]: end };
}
