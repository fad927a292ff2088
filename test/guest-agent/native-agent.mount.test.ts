import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { expect, test } from 'vitest';

import { mountAt, readMountTable } from '../../guest-agent/fuse/mount/mount-table.ts';
import { eventually } from '../support/eventually.ts';
import { mountAgent, mountAnswers } from '../support/mounted-agent.ts';
import { describeUnless, fuseNativeObstacle, rootObstacle } from '../support/requirements.ts';

// oxlint-disable-next-line typescript/strict-void-return -- promisify has a type of its own for execFile
const run = promisify(execFile);

const obstacle = rootObstacle() ?? fuseNativeObstacle();

describeUnless(obstacle, 'the agent with the fuse-native backend', () => {
  test('a save is a row, and what is not CSV gives EINVAL at close', async () => {
    await using agent = await mountAgent({ backend: 'fuse-native' });
    const directory = join(agent.mountPath, 'unencrypted');
    writeFileSync(join(directory, 'load'), 'cpu,memory\n0.5,1024\n');
    expect(() => {
      writeFileSync(join(directory, 'load'), '"never closed\n');
    }).toThrow('EINVAL');
    expect(agent.rows('load')).toEqual([{ cpu: 0.5, memory: 1_024 }]);
  });

  test('kill -9 of the agent: the mount works again within 2 s without an operator, no acknowledged save is lost', async () => {
    await using agent = await mountAgent({ backend: 'fuse-native' });
    const file = join(agent.mountPath, 'unencrypted', 'users');
    writeFileSync(file, '41\n');
    await agent.kill();
    await mountAnswers(agent, { timeoutMs: 2_000 });
    expect(readFileSync(file, 'utf8')).toBe('41\n');
    writeFileSync(file, '42\n');
    expect(agent.rows('users')).toEqual([{ column1: 41 }, { column1: 42 }]);
  });

  test('a handle whose agent was killed fails and never makes a row', async () => {
    await using agent = await mountAgent({ backend: 'fuse-native' });
    const file = join(agent.mountPath, 'unencrypted', 'half');
    const script = `import errno,os,sys
handle=os.open('${file}',os.O_CREAT|os.O_WRONLY)
os.write(handle,b'1')
print('open',flush=True)
sys.stdin.readline()
for step in (lambda: os.write(handle,b'2\\n'), lambda: os.close(handle)):
    try: step(); print('ok')
    except OSError as error: print(errno.errorcode[error.errno])`;
    const writing = run('python3', ['-c', script]);
    await new Promise<void>((resolve) => {
      writing.child.stdout?.once('data', () => {
        resolve();
      });
    });
    await agent.kill();
    await mountAnswers(agent, { timeoutMs: 5_000 });
    writing.child.stdin?.end('\n');
    const { stdout } = await writing;
    expect(stdout).toMatch(/^open\n(ENOTCONN|ECONNABORTED)\n/);
    expect(agent.tables('unencrypted')).toEqual([]);
  });

  test('a mount that someone else took away is mounted again', async () => {
    await using agent = await mountAgent({ backend: 'fuse-native' });
    const file = join(agent.mountPath, 'unencrypted', 'users');
    writeFileSync(file, '1\n');
    await run('umount', ['-i', agent.mountPath]);
    await mountAnswers(agent, { timeoutMs: 10_000 });
    expect(readFileSync(file, 'utf8')).toBe('1\n');
  });

  test('a mount that someone else took away is mounted again over what came into its directory meanwhile, as with dev-fuse', async () => {
    await using agent = await mountAgent({ backend: 'fuse-native' });
    const file = join(agent.mountPath, 'unencrypted', 'users');
    writeFileSync(file, '1\n');
    const { pid } = agent;
    // Stopped, so that the file is there before the agent notices.
    process.kill(pid, 'SIGSTOP');
    await run('umount', ['-i', '-l', agent.mountPath]);
    writeFileSync(join(agent.mountPath, 'bare'), 'x');
    process.kill(pid, 'SIGCONT');
    await mountAnswers(agent, { timeoutMs: 10_000 });
    expect(readFileSync(file, 'utf8')).toBe('1\n');
    writeFileSync(file, '2\n');
    expect(agent.rows('users')).toEqual([{ column1: 1 }, { column1: 2 }]);
  });

  test('stopping while a file is open leaves no mount behind', async () => {
    const agent = await mountAgent({ backend: 'fuse-native' });
    const file = join(agent.mountPath, 'unencrypted', 'open');
    const holder = execFile('sh', ['-c', `exec 3>${file}; echo 7 >&3; echo open; read line`]);
    await new Promise<void>((resolve) => {
      holder.stdout?.once('data', () => {
        resolve();
      });
    });
    await agent[Symbol.asyncDispose]();
    expect(mountAt(readMountTable(), agent.mountPath)).toBeUndefined();
    holder.stdin?.end('\n');
    await eventually(() => holder.exitCode !== null, { timeoutMs: 5_000 });
  });
});
