import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';

import { afterEach, describe, expect, test } from 'vitest';
import { z } from 'zod';

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
