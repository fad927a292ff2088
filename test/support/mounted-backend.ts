import { spawn } from 'node:child_process';
import { join } from 'node:path';

import { compiledEntry } from '../../common/runtime/package-root.ts';
import type { BackendName } from '../../guest-agent/fuse/backend-capability.ts';
import { mountAgent } from './mounted-agent.ts';
import { temporaryDirectory } from './temporary-directory.ts';

/** A mount served by a process of its own, so that a test may use it synchronously. */
export interface MountedBackend extends AsyncDisposable {
  /** Where any bytes can be saved. */
  readonly path: string;
  /** Where {@link refusedSave} is refused. */
  readonly refusingPath: string;
}

/** A save that a mounted backend refuses, and the errno that close(2) gives then: a quote that is never closed. */
export const refusedSave = {
  name: 'refused.csv',
  content: '"not acceptable\n',
  code: 'EINVAL',
  errno: -22,
} as const;

const entries: Readonly<Record<BackendName, string>> = {
  'dev-fuse': 'test/support/dev-fuse-process.ts',
  'fuse-native': 'test/support/fuse-native-process.ts',
};

/**
 * Mounts a MemoryFileSystem through `backend`; disposal unmounts, and fails when the process did not end well.
 * `declined2` (dev-fuse): bits of initFlag2 to decline, as if the kernel were older.
 */
export async function mountBackend(backend: BackendName, declined2 = 0): Promise<MountedBackend> {
  const directory = temporaryDirectory();
  const path = join(directory.path, 'mount');
  const child = spawn(
    process.execPath,
    [
      compiledEntry(entries[backend]),
      path,
      refusedSave.name,
      String(refusedSave.errno),
      String(declined2),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const exited = new Promise<number | null>((resolve) => {
    child.on('exit', resolve);
  });
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => {
      resolve();
    });
    child.on('exit', (code) => {
      reject(new Error(`${backend} ended with ${code} before it was ready`));
    });
  });
  return {
    path,
    refusingPath: path,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM');
      const code = await exited;
      if (code !== 0) throw new Error(`${backend} ended with ${code}`);
      directory[Symbol.dispose]();
    },
  };
}

/** Mounts the real file system over real databases through `backend`: an agent, kept alive as in production. */
export async function mountRealBackend(backend: BackendName): Promise<MountedBackend> {
  const agent = await mountAgent({
    backend,
    // Speed: the contract is about the file system, not about power cuts.
    synchronous: 'NORMAL',
    config: { files: { fileBytesMax: 8 * 2 ** 20 } },
  });
  return {
    path: join(agent.mountPath, 'encrypted'),
    refusingPath: join(agent.mountPath, 'unencrypted'),
    [Symbol.asyncDispose]: () => agent[Symbol.asyncDispose](),
  };
}
