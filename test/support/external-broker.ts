import {
  execFileSync,
  spawn,
  type ChildProcess,
  type ExecFileSyncOptions,
} from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

import { packageRoot } from '../../common/runtime/package-root.ts';

const cacheDirectory = join(packageRoot(), '.cache', 'brokers');
const root = join(cacheDirectory, 'root');

/** Debian packages that hold each server and the libraries that a Debian without it lacks. */
const packages = {
  mosquitto: [
    'mosquitto',
    'libmosquitto1',
    'libwebsockets17',
    'libcjson1',
    'libdlt2',
    'libwrap0',
    'libnsl2',
    'libtirpc3',
  ],
  'nats-server': ['nats-server'],
} as const;
export type ExternalBrokerKind = keyof typeof packages;

export type PreparedBroker =
  | { readonly ok: true; readonly program: string }
  | { readonly ok: false; readonly reason: string };

/**
 * Unpacks the server privately into .cache/ (apt-get download, dpkg -x; nothing is installed) and returns its program,
 * or the reason why it can't be had.
 */
export function prepareExternalBroker(kind: ExternalBrokerKind): PreparedBroker {
  return unpackProgram(join('sbin', kind), packages[kind]);
}

/** `mosquitto_sub` in the same way, and the environment that it needs. */
export function prepareForeignSubscriber(): PreparedBroker & { readonly env: NodeJS.ProcessEnv } {
  const needed = ['mosquitto-clients', 'libmosquitto1', 'libcjson1'];
  return { ...unpackProgram(join('bin', 'mosquitto_sub'), needed), env: libraryEnvironment() };
}

function unpackProgram(name: string, packageNames: readonly string[]): PreparedBroker {
  const program = join(root, 'usr', name);
  if (existsSync(program)) return { ok: true, program };
  const parts = join(cacheDirectory, `${basename(name)}-${process.pid}`);
  try {
    mkdirSync(parts, { recursive: true });
    mkdirSync(root, { recursive: true });
    const quiet: ExecFileSyncOptions = {
      cwd: parts,
      stdio: ['ignore', 'ignore', 'pipe'],
      timeout: 60_000,
    };
    execFileSync('apt-get', ['download', '-q', ...packageNames], quiet);
    execFileSync(
      'sh',
      ['-c', 'for part in *.deb; do dpkg -x "$part" "$0" || exit 1; done', root],
      quiet,
    );
    return { ok: true, program };
  } catch (error) {
    const cause = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    return { ok: false, reason: `${basename(name)} can't be unpacked here: ${cause}` };
  } finally {
    rmSync(parts, { recursive: true, force: true });
  }
}

export interface RunningBroker {
  readonly url: string;
  stop(): Promise<void>;
}

/** Starts the server on a loopback port with a private data directory; resolves when it accepts connections. */
export async function startExternalBroker(
  kind: ExternalBrokerKind,
  program: string,
  fixedPort?: number,
): Promise<RunningBroker> {
  const directory = mkdtempSync(join(tmpdir(), 'isobar-broker-'));
  const port = fixedPort ?? (await freePort());
  const config = join(directory, 'config');
  const lines =
    kind === 'mosquitto'
      ? [
          `listener ${port} 127.0.0.1`,
          'allow_anonymous true',
          'persistence false',
          `user ${userName()}`,
        ]
      : [
          'server_name: isobar_test',
          'listen: 127.0.0.1:-1',
          `jetstream: { store_dir: "${directory}/store" }`,
          `mqtt: { listen: "127.0.0.1:${port}" }`,
        ];
  writeFileSync(config, lines.join('\n'));
  const child = spawn(program, ['-c', config], {
    stdio: 'ignore',
    env: libraryEnvironment(),
  });
  await accepts(port, child);
  return {
    url: `mqtt://127.0.0.1:${port}`,
    stop: async () => {
      const exited = new Promise((resolve) => {
        child.once('exit', resolve);
      });
      child.kill('SIGKILL');
      await exited;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

function libraryEnvironment(): NodeJS.ProcessEnv {
  return { LD_LIBRARY_PATH: join(root, 'usr', 'lib', 'x86_64-linux-gnu') };
}

function userName(): string {
  return execFileSync('id', ['-un'], { encoding: 'utf8' }).trim();
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  await new Promise((resolve) => {
    server.close(resolve);
  });
  if (address === null || typeof address !== 'object') throw new Error('no port');
  return address.port;
}

async function accepts(port: number, child: ChildProcess): Promise<void> {
  for (let attempt = 0; attempt < 500; attempt += 1) {
    if (child.exitCode !== null) throw new Error(`the broker ended with ${child.exitCode}`);
    const isOpen = await new Promise<boolean>((resolve) => {
      const socket = connect({ host: '127.0.0.1', port }, () => {
        socket.destroy();
        resolve(true);
      });
      socket.on('error', () => {
        setTimeout(() => {
          resolve(false);
        }, 20);
      });
    });
    if (isOpen) return;
  }
  throw new Error('the broker does not accept connections');
}
