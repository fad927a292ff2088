import { execFile, execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { open, readdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve as resolvePath } from 'node:path';
import { promisify } from 'node:util';

import { afterAll, beforeAll, expect, test } from 'vitest';

import { mountAt, readMountTable } from '../../../guest-agent/fuse/mount/mount-table.ts';
import { eventually } from '../../support/eventually.ts';
import {
  describeUnless,
  asNobody,
  fuseObstacle,
  rootObstacle,
  userMountObstacle,
} from '../../support/requirements.ts';
import { agentOf, startSupervised } from '../../support/supervised-process.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

// oxlint-disable-next-line typescript/strict-void-return -- promisify has a type of its own for execFile
const run = promisify(execFile);
const obstacle = rootObstacle() ?? fuseObstacle();

function isMounted(path: string): boolean {
  return mountAt(readMountTable(), path) !== undefined;
}

function isAlive(processId: number): boolean {
  return existsSync(`/proc/${processId}`);
}

/** Writes a file and closes it after `agent` was killed in the middle of that close; resolves to its outcome. */
async function closeWhileKilled(file: string, agent: number): Promise<string> {
  const script = `
import os,errno
f=os.open('${file}',os.O_CREAT|os.O_WRONLY); os.write(f,b'1,2\\n'); print('closing',flush=True)
try: os.close(f); print('ok')
except OSError as e: print(errno.errorcode[e.errno])`;
  const closing = run('python3', ['-c', script]);
  await new Promise<void>((resolve) => {
    closing.child.stdout?.once('data', () => {
      resolve();
    });
  });
  // The close is inside the file system once its process sleeps there.
  await eventually(
    async () => {
      const where = await readFile(`/proc/${closing.child.pid}/wchan`, 'utf8');
      return /fuse|request_wait/.test(where);
    },
    { timeoutMs: 2_000 },
  );
  process.kill(agent, 'SIGKILL');
  return (await closing).stdout.trim().split('\n').at(-1) ?? '';
}

describeUnless(obstacle, 'Supervisor', () => {
  test('kill -9 of the agent: the mount works again within 2 s without an operator', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'mount');
    await using supervised = await startSupervised(path, 'serve');
    await writeFile(join(path, 'before'), '1\n');
    for (let round = 0; round < 3; round += 1) {
      const [agent = 0] = await agentsOf(supervised.child.pid ?? 0);
      process.kill(agent, 'SIGKILL');
      const startMs = performance.now();
      await writeFile(join(path, 'after'), '2\n');
      expect(await readFile(join(path, 'after'), 'utf8')).toBe('2\n');
      expect(performance.now() - startMs).toBeLessThan(2_000);
      await eventually(async () => (await agentsOf(supervised.child.pid ?? 0))[0] !== agent, {
        timeoutMs: 2_000,
      });
    }
    expect(await readdir(path)).toEqual(['after']);
  });

  test('an agent that hangs (SIGSTOP) is replaced within unresponsiveMaxMs, and the mount works again', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'mount');
    await using supervised = await startSupervised(path, 'serve');
    await writeFile(join(path, 'before'), '1\n');
    process.kill(agentOf(supervised), 'SIGSTOP');
    await run('sh', ['-c', `echo 2 > ${path}/after; cat ${path}/after`], { timeout: 20_000 });
    expect(isAlive(agentOf(supervised))).toBe(false);
    expect(await readdir(path)).toEqual(['after']);
  });

  test('an agent whose fuse thread never ends a request is replaced, though its main thread answers', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'mount');
    await using supervised = await startSupervised(path, 'endless');
    await run('sh', ['-c', `cat ${path}/endless; echo 2 > ${path}/after`], { timeout: 20_000 });
    expect(isAlive(agentOf(supervised))).toBe(false);
    expect(await readdir(path)).toEqual(['after']);
  });

  test('a successor that never gets ready is ended after readyTimeoutMs, and another one is started', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'mount');
    await using supervised = await startSupervised(path, 'second-hangs');
    process.kill(agentOf(supervised), 'SIGKILL');
    await run('sh', ['-c', `echo 1 > ${path}/after`], { timeout: 40_000 });
    expect(await readdir(path)).toEqual(['after']);
  });

  test('a handle whose writes died gets EIO and never makes a row', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'mount');
    await using supervised = await startSupervised(path, 'hold');
    const outcome = await closeWhileKilled(join(path, 'f'), agentOf(supervised));
    expect(outcome).toBe('EIO');
    expect(await readdir(path)).toEqual([]);
  });

  test('without FUSE_NOTIFY_RESEND (before 6.9) kill -9 leads to a new mount at the same place', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'mount');
    await using supervised = await startSupervised(path, 'no-resend');
    await writeFile(join(path, 'f'), '1\n');
    const before = await open(join(path, 'f'), 'r');
    const startMs = performance.now();
    process.kill(agentOf(supervised), 'SIGKILL');
    // Answered by the new mount alone: the old one's connection was aborted, which its handles show.
    await eventually(
      async () => {
        const failure = await before.read().catch((error: unknown) => String(error));
        return typeof failure === 'string' && /ENOTCONN|ECONNABORTED/.test(failure);
      },
      { timeoutMs: 2_000 },
    );
    await eventually(() => isMounted(path), { timeoutMs: 2_000 });
    await writeFile(join(path, 'g'), '2\n');
    expect(performance.now() - startMs).toBeLessThan(2_000);
    expect(await readdir(path)).toEqual(['g']);
    await before.close().catch(() => {});
  });

  test.each(['the agent is gone', 'the next one starts'] as const)(
    'a stop in the middle of a restart, when %s, leaves no mount behind',
    async (moment) => {
      using directory = temporaryDirectory();
      const path = join(directory.path, 'mount');
      const supervised = await startSupervised(path, 'no-resend');
      const agent = agentOf(supervised);
      const supervisor = supervised.child.pid ?? 0;
      const isReached = {
        'the agent is gone': () => !isAlive(agent),
        'the next one starts': async () =>
          !isAlive(agent) && (await agentsOf(supervisor)).length > 0,
      }[moment];
      process.kill(agent, 'SIGKILL');
      await eventually(isReached, { timeoutMs: 2_000, pollMs: 1 });
      supervised.child.kill('SIGTERM');
      expect(await supervised.exited).toBe(0);
      expect(isMounted(path)).toBe(false);
    },
  );

  test('a stale mount, whose agent and supervisor were killed, is taken away at the next start', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'mount');
    const killed = await startSupervised(path, 'serve');
    // Stopped first, so that the agent can't unmount when it finds itself alone.
    process.kill(agentOf(killed), 'SIGSTOP');
    killed.child.kill('SIGKILL');
    process.kill(agentOf(killed), 'SIGKILL');
    await eventually(() => !isAlive(agentOf(killed)), { timeoutMs: 2_000 });
    expect(() => statSync(path)).toThrow('ENOTCONN');
    await using next = await startSupervised(path, 'serve');
    await writeFile(join(path, 'f'), '1\n');
    expect(agentOf(next)).toBeGreaterThan(0);
  });

  test.each(['SIGTERM', 'SIGINT'] as const)(
    '%s: stops the agent, unmounts, leaves nothing behind',
    async (signal) => {
      using directory = temporaryDirectory();
      const path = join(directory.path, 'made', 'mount');
      const supervised = await startSupervised(path, 'serve');
      await writeFile(join(path, 'f'), '1\n');
      supervised.child.kill(signal);
      expect(await supervised.exited).toBe(0);
      expect(isMounted(path)).toBe(false);
      expect(existsSync(path)).toBe(false);
      expect(isAlive(agentOf(supervised))).toBe(false);
    },
  );

  test('a stop does not wait for ever for a program that keeps a file open', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'mount');
    const supervised = await startSupervised(path, 'serve');
    const holder = run('sh', ['-c', 'exec 3>f; echo held; read line'], { cwd: path });
    await new Promise((resolve) => {
      holder.child.stdout?.once('data', resolve);
    });
    supervised.child.kill('SIGTERM');
    expect(await supervised.exited).toBe(0);
    expect(isMounted(path)).toBe(false);
    holder.child.stdin?.end();
    await holder.catch(() => {});
  });

  test('a second signal stops now', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'mount');
    const supervised = await startSupervised(path, 'serve');
    const agent = agentOf(supervised);
    // A stopped agent can't drain; only the second signal ends it before drainTimeoutMs.
    process.kill(agent, 'SIGSTOP');
    const startMs = performance.now();
    supervised.child.kill('SIGTERM');
    await eventually(() => !isMounted(path), { timeoutMs: 2_000 });
    supervised.child.kill('SIGTERM');
    await supervised.exited;
    expect(performance.now() - startMs).toBeLessThan(2_500);
    await eventually(() => !isAlive(agent), { timeoutMs: 2_000 });
    expect(isMounted(path)).toBe(false);
  });

  test('when the supervisor is killed the agent unmounts and ends', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'mount');
    const supervised = await startSupervised(path, 'serve');
    supervised.child.kill('SIGKILL');
    await eventually(() => !isMounted(path) && !isAlive(agentOf(supervised)), { timeoutMs: 5_000 });
    expect(readdirSync(path)).toEqual([]);
  });

  test('an unmount by somebody else is mended by a new mount', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'mount');
    await using supervised = await startSupervised(path, 'serve');
    execFileSync('umount', [path]);
    await eventually(() => isMounted(path), { timeoutMs: 5_000 });
    await writeFile(join(path, 'f'), '1\n');
    expect(agentOf(supervised)).toBeGreaterThan(0);
  });

  test('an agent that refuses its configuration is not started again', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'mount');
    const supervised = await startSupervised(path, 'refuse');
    expect(supervised.first).toMatchObject({ error: expect.stringContaining('exit code 78') });
    expect(await supervised.exited).toBe(1);
    expect(isMounted(path)).toBe(false);
  });

  test('a mount point that is not empty, no directory, can not be made, or has a running mount is refused with what to do', async () => {
    using directory = temporaryDirectory();
    const path = join(directory.path, 'mount');
    await using running = await startSupervised(path, 'serve');
    expect(agentOf(running)).toBeGreaterThan(0);
    mkdirSync(join(directory.path, 'full'));
    writeFileSync(join(directory.path, 'full', 'file'), '');
    for (const [name, hint] of [
      ['full', 'choose an empty directory'],
      ['full/file', 'choose another path'],
      ['mount', 'stop that agent'],
      // mkdir(2) in /proc gives ENOENT, however often it is tried.
      ['/proc/isobar/mount', "can't be used: ENOENT"],
    ] as const) {
      const refused = await startSupervised(resolvePath(directory.path, name), 'serve');
      expect(refused.first).toMatchObject({ error: expect.stringContaining(hint) });
      await refused.exited;
    }
  });
});

describeUnless(obstacle ?? userMountObstacle(), 'Supervisor as non-root', () => {
  let deviceMode = 0;
  beforeAll(() => {
    deviceMode = statSync('/dev/fuse').mode & 0o7777;
    // What distributions with udev set; a bare machine lets only root open it.
    chmodSync('/dev/fuse', 0o666);
  });
  afterAll(() => {
    chmodSync('/dev/fuse', deviceMode);
  });

  test('without user_allow_other: a private mount, and kill -9 of the agent is mended alike', async () => {
    using directory = temporaryDirectory();
    chmodSync(directory.path, 0o777);
    const path = join(directory.path, 'mount');
    const supervised = await startSupervised(path, 'serve', asNobody);
    expect(supervised.first).toMatchObject({ isPrivate: true });
    expect(await shellAsNobody(`echo 1,2 > ${path}/f; cat ${path}/f`)).toBe('1,2\n');
    process.kill(agentOf(supervised), 'SIGKILL');
    expect(await shellAsNobody(`echo 3 > ${path}/g; cat ${path}/g; ls ${path}`)).toBe('3\ng\n');
    supervised.child.kill('SIGTERM');
    expect(await supervised.exited).toBe(0);
    expect(isMounted(path)).toBe(false);
  });

  test('a directory of somebody else is refused with what to do', async () => {
    using directory = temporaryDirectory();
    chmodSync(directory.path, 0o755);
    mkdirSync(join(directory.path, 'roots'));
    const refused = await startSupervised(join(directory.path, 'roots'), 'serve', asNobody);
    expect(refused.first).toMatchObject({ error: expect.stringContaining('run as root') });
    await refused.exited;
  });
});

async function shellAsNobody(script: string): Promise<string> {
  const [program, ...args] = [...asNobody, 'sh', '-ec', script];
  return (await run(program, args, { timeout: 5_000 })).stdout;
}

/** The agents that a supervisor has now: its children that run the test agent. */
async function agentsOf(supervisor: number): Promise<number[]> {
  const text = await readFile(`/proc/${supervisor}/task/${supervisor}/children`, 'utf8');
  const children = text.split(' ').filter(Boolean).map(Number);
  return children.filter((child) => commandLine(child).includes('supervised-agent'));
}

/** Empty for a process that is gone. */
function commandLine(processId: number): string {
  try {
    return readFileSync(`/proc/${processId}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}
