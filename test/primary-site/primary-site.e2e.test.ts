import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';

import { afterEach, describe, expect, test } from 'vitest';
import { z } from 'zod';

import { locateDataDirectory } from '../../cli/data-directory.ts';
import { readerStatusSchema } from '../../common/control/reader-answer.ts';
import { compiledEntry } from '../../common/runtime/package-root.ts';
import { openDatabase } from '../../common/sqlite/database.ts';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/external-broker.ts';
import { temporaryDirectory } from '../support/temporary-directory.ts';

const answerSchema = z.object({ readings: z.array(z.object({ value: z.number() })) });
const children = new Set<ChildProcess>();

afterEach(async () => {
  for (const child of children) await killHard(child);
});

function start(entry: string, ...parameters: string[]): ChildProcess {
  const child = spawn(process.execPath, [compiledEntry(entry), ...parameters], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.add(child);
  return child;
}

async function killHard(child: ChildProcess): Promise<void> {
  children.delete(child);
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}

async function get(socketPath: string, path: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const asking = request({ socketPath, path }, (answer) => {
      const parts: Buffer[] = [];
      answer.on('data', (part: Buffer) => {
        parts.push(part);
      });
      answer.on('end', () => {
        resolve(JSON.parse(Buffer.concat(parts).toString('utf8')));
      });
    });
    asking.on('error', reject);
    asking.end();
  });
}

describe('primary site and producer as processes', () => {
  test('kill -9 of either, again and again: the exact set arrives, nothing twice', async () => {
    using directory = temporaryDirectory();
    const count = 4_000;
    const port = await freePort();
    const config = join(directory.path, 'primary-site.json');
    const controlSocket = join(directory.path, 'api.sock');
    const dataDirectory = join(directory.path, 'primary-site');
    writeFileSync(
      config,
      JSON.stringify({
        dataDirectory,
        controlSocket,
        mqttUrl: `mqtt://127.0.0.1:${port}`,
      }),
    );
    const startReader = (): ChildProcess =>
      start('primary-site/main.ts', '--config', config, '--log-level', 'error');
    const startProducer = (): ChildProcess =>
      start(
        'test/support/producer-process.ts',
        join(directory.path, 'log.db'),
        String(port),
        String(count),
      );
    const storedCount = async (): Promise<number> => {
      const answer = await get(controlSocket, `/v1/query?limit=${count * 2}`);
      return answerSchema.parse(answer).readings.length;
    };

    let reader = startReader();
    let producer = startProducer();
    for (const [index, goal] of [400, 900, 1_500, 2_200].entries()) {
      await eventually(async () => (await storedCount()) > goal, { timeoutMs: 30_000 });
      if (index % 2 === 0) {
        await killHard(producer);
        producer = startProducer();
      } else {
        await killHard(reader);
        reader = startReader();
      }
    }
    await eventually(async () => (await storedCount()) >= count, { timeoutMs: 60_000 });
    const exited = once(reader, 'exit');
    reader.kill('SIGTERM');
    expect(await exited).toEqual([0, null]);
    await killHard(producer);

    const database = openDatabase(join(dataDirectory, 'primary-site.db'), { readonly: true });
    const values = database.prepare('SELECT value FROM readings ORDER BY value').pluck().all();
    expect(values).toEqual(Array.from({ length: count }, (_, index) => index + 1));
    const ranges = database.prepare('SELECT from_seq, through_seq FROM stored_ranges').all();
    expect(ranges).toEqual([{ from_seq: 1, through_seq: count + 1 }]);
    database.close();
  });

  test('kill -9 of the reader before the first reading arrives: `isobar watch` misses none of those that come', async () => {
    using directory = temporaryDirectory();
    const count = 20;
    const port = await freePort();
    const { sockets } = locateDataDirectory(directory.path, {}, 0);
    const config = join(directory.path, 'primary-site.json');
    writeFileSync(
      config,
      JSON.stringify({
        dataDirectory: join(directory.path, 'primary-site'),
        controlSocket: sockets.primarySite,
        mqttUrl: `mqtt://127.0.0.1:${port}`,
      }),
    );
    const startReader = (): ChildProcess =>
      start('primary-site/main.ts', '--config', config, '--log-level', 'error');
    const reader = startReader();
    await eventually(() => get(sockets.primarySite, '/v1/process'), { timeoutMs: 20_000 });
    const watch = start('cli/main.ts', 'watch', '--json', '--data-dir', directory.path);
    let printed = '';
    watch.stdout?.on('data', (part: Buffer) => {
      printed += part.toString('utf8');
    });
    const watcherCount = async (): Promise<number> =>
      readerStatusSchema.parse(await get(sockets.primarySite, '/v1/status')).watcherCount;
    await eventually(async () => (await watcherCount()) === 1, { timeoutMs: 20_000 });
    await killHard(reader);
    // Asleep until all has come: a reconnection that begins at its own "now" would see nothing of it.
    watch.kill('SIGSTOP');
    const path = join(directory.path, 'log.db');
    start('test/support/producer-process.ts', path, String(port), String(count));
    startReader();
    const stored = async (): Promise<unknown[]> =>
      answerSchema.parse(await get(sockets.primarySite, '/v1/query')).readings;
    await eventually(async () => (await stored()).length === count, { timeoutMs: 30_000 });
    expect(printed).toBe('');
    watch.kill('SIGCONT');
    const values = (): unknown[] =>
      printed
        .split('\n')
        .slice(0, -1)
        .map((line) => z.object({ value: z.number() }).parse(JSON.parse(line)).value);
    await eventually(() => values().length >= count, { timeoutMs: 30_000 });
    expect(values()).toEqual(Array.from({ length: count }, (_, index) => index + 1));
  });

  test('reports every problem of its configuration at once and exits with 78', async () => {
    using directory = temporaryDirectory();
    const config = join(directory.path, 'bad.json');
    writeFileSync(config, JSON.stringify({ mqttUrl: 'http://x', retention: { ageMaxMs: 1 } }));
    const child = spawn(process.execPath, [
      compiledEntry('primary-site/main.ts'),
      '--check-config',
      '--config',
      config,
    ]);
    let output = '';
    child.stderr.on('data', (part: Buffer) => {
      output += part.toString('utf8');
    });
    expect(await once(child, 'close')).toEqual([78, null]);
    expect(output).toContain('4 problem(s)');
    expect(output).toContain('mqttUrl = "http://x": mqtt://HOST:PORT');
  });
});
