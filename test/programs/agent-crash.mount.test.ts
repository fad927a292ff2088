import { spawn } from 'node:child_process';

import { expect, test } from 'vitest';

import { readStamps, runWriter } from '../../bench/writer.ts';
import { eventually } from '../support/eventually.ts';
import { FaultyDisk } from '../support/faulty-disk.ts';
import { mountAgent, mountAnswers, type MountedAgent } from '../support/mounted-agent.ts';
import { mustRun } from '../support/programs/run-program.ts';
import {
  describeUnless,
  fuseObstacle,
  programObstacle,
  skipBecause,
} from '../support/requirements.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

/** Sequence numbers that a writer of bench/writer.c has rows for. */
function savedSequences(agent: MountedAgent, writer: number): Set<number> {
  return new Set(agent.rows(`writer-${writer}-0`).map((row) => Number(row['sequence'])));
}

describeUnless(fuseObstacle(), 'kill -9 of the agent', () => {
  test('"the mount works again within 2 s without an operator"', async () => {
    await using agent = await mountAgent();
    const file = `${agent.mountPath}/unencrypted/users`;
    await mustRun('bash', ['-c', `echo 1 > ${file}`]);
    await agent.kill();
    await mountAnswers(agent, { timeoutMs: 2_000 });
    await mustRun('bash', ['-c', `echo 2 > ${file}; cat ${file}`]);
    expect(agent.rows('users')).toEqual([{ column1: 1 }, { column1: 2 }]);
  });

  test('an agent that hangs (SIGSTOP): "the mount works again without an operator", "no acknowledged save is lost"', async () => {
    await using agent = await mountAgent({ config: { unresponsiveMaxMs: 2_000 } });
    const file = `${agent.mountPath}/unencrypted/users`;
    await mustRun('bash', ['-c', `echo 1 > ${file}`]);
    const { pid } = agent;
    process.kill(pid, 'SIGSTOP');
    await mustRun('bash', ['-c', `echo 2 > ${file}; cat ${file}`], { timeoutMs: 20_000 });
    expect(agent.pid).not.toBe(pid);
    expect(agent.rows('users')).toEqual([{ column1: 1 }, { column1: 2 }]);
  });

  test('"no acknowledged save is lost", and none is a row twice', async () => {
    await using agent = await mountAgent();
    using scratch = temporaryDirectory();
    const stampsPath = `${scratch.path}/stamps`;
    const writing = runWriter({
      directory: `${agent.mountPath}/unencrypted`,
      writerCount: 4,
      durationMs: 10_000,
      savesMax: 100_000,
      stampsPath,
    });
    for (let kill = 0; kill < 3; kill += 1) {
      // The writers must be at work when the agent dies.
      const before = agent.tables('unencrypted').includes('writer-0-0')
        ? savedSequences(agent, 0).size
        : 0;
      await eventually(() => savedSequences(agent, 0).size > before + 50, { timeoutMs: 10_000 });
      await agent.kill();
      await mountAnswers(agent, { timeoutMs: 2_000 });
    }
    const report = await writing;
    for (const [writer, closedAtMs] of readStamps(stampsPath, report).entries()) {
      const saved = savedSequences(agent, writer);
      const acknowledged = [...closedAtMs.keys()].filter(
        (index) => !Number.isNaN(closedAtMs[index]),
      );
      expect(acknowledged.length).toBeGreaterThan(0);
      expect(acknowledged.filter((index) => !saved.has(index + 1))).toEqual([]);
      expect(agent.rows(`writer-${writer}-0`)).toHaveLength(saved.size);
    }
  });

  test('"a handle whose writes died gets EIO and never makes a row"', async () => {
    await using agent = await mountAgent();
    const file = `${agent.mountPath}/unencrypted/half`;
    const script = `
import errno, os, sys
f = os.open('${file}', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.write(f, b'cpu,mem\\n')
print('written', flush=True)
sys.stdin.readline()
try:
  os.write(f, b'1,2\\n')
  os.close(f)
  print('closed')
except OSError as error:
  print(errno.errorcode[error.errno])`;
    const writer = spawn('python3', ['-c', script], { stdio: ['pipe', 'pipe', 'inherit'] });
    let printed = '';
    writer.stdout.on('data', (chunk: Buffer) => {
      printed += chunk.toString();
    });
    await eventually(() => printed.includes('written'), { timeoutMs: 10_000 });
    await agent.kill();
    await mountAnswers(agent, { timeoutMs: 2_000 });
    writer.stdin.end('\n');
    await eventually(() => writer.exitCode !== null, { timeoutMs: 10_000 });
    expect(printed).toBe('written\nEIO\n');
    expect(agent.tables('unencrypted')).toEqual([]);
  });

  test('killed between commit and reply: the close gives EIO, the row is there once, and a second try is another row', async (context) => {
    const obstacle = programObstacle('cc', 'gcc');
    if (obstacle !== undefined) {
      skipBecause(context, obstacle);
      return;
    }
    using disk = await FaultyDisk.make();
    await using agent = await mountAgent({ environment: disk.environment });
    const file = `${agent.mountPath}/unencrypted/users`;
    await mustRun('bash', ['-c', `echo 1 > ${file}`]);
    const { pid } = agent;
    disk.fail('die');
    const script = `
import errno
f = open('${file}', 'w')
f.write('2\\n')
try:
  f.close()
  print('closed')
except OSError as error:
  print(errno.errorcode[error.errno])`;
    const { stdout } = await mustRun('python3', ['-c', script], { timeoutMs: 20_000 });
    expect(stdout).toBe('EIO\n');
    expect(agent.pid).not.toBe(pid);
    expect(agent.rows('users')).toEqual([{ column1: 1 }, { column1: 2 }]);
    await mustRun('bash', ['-c', `cat ${file}; echo 2 > ${file}`]);
    await agent.restart();
    expect(agent.rows('users')).toEqual([{ column1: 1 }, { column1: 2 }, { column1: 2 }]);
  });
});
