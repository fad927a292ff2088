import { mkdirSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';

import { Hono } from 'hono';
import { stream } from 'hono/streaming';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';

import { ConfigError } from '../../../common/config/load-config.ts';
import { ControlClient } from '../../../common/control/control-client.ts';
import { ControlServer } from '../../../common/control/control-server.ts';
import { follow } from '../../../common/control/follow.ts';
import { SystemClock } from '../../../common/runtime/clock.ts';
import { silentLog } from '../../../common/runtime/log.ts';
import { OperatingError } from '../../../common/runtime/operating-error.ts';
import { SystemRandom } from '../../../common/runtime/random.ts';
import { temporaryDirectory } from '../../support/temporary-directory.ts';

const clock = new SystemClock();

function serverOf(app: Hono, socketPath: string): ControlServer {
  return new ControlServer(app, { clock, log: silentLog }, { name: 'fixture', socketPath });
}

function clientOf(socketPath: string, silenceMaxMs = 5_000): ControlClient {
  return new ControlClient({
    socketPath,
    peer: 'the fixture',
    startCommand: 'isobar up',
    silenceMaxMs,
  });
}

async function withServer(
  app: Hono,
  body: (client: ControlClient, socketPath: string) => Promise<void>,
): Promise<void> {
  using directory = temporaryDirectory();
  const socketPath = join(directory.path, 'run', 'fixture.sock');
  const server = serverOf(app, socketPath);
  await server.start();
  try {
    await body(clientOf(socketPath), socketPath);
  } finally {
    await server.stop();
  }
}

describe('ControlServer', () => {
  test('serves on a socket with mode 0600 in a directory with mode 0700', async () => {
    await withServer(new Hono(), (_client, socketPath) => {
      expect(statSync(socketPath).mode & 0o777).toBe(0o600);
      expect(statSync(join(socketPath, '..')).mode & 0o777).toBe(0o700);
      return Promise.resolve();
    });
  });

  test('removes a stale socket that a killed process left', async () => {
    using directory = temporaryDirectory();
    const socketPath = join(directory.path, 'stale.sock');
    const killed = createServer();
    await new Promise<void>((resolve) => {
      killed.listen(join(directory.path, 'other.sock'), resolve);
    });
    // Closing unlinks the path a server was bound to, so the file left behind is a moved one.
    renameSync(join(directory.path, 'other.sock'), socketPath);
    await new Promise((resolve) => {
      killed.close(resolve);
    });
    expect(statSync(socketPath).isSocket()).toBe(true);

    const server = serverOf(new Hono(), socketPath);
    await server.start();
    expect(await clientOf(socketPath).process()).toMatchObject({ pid: process.pid });
    await server.stop();
  });

  test('says which process already lives there, and leaves it alone', async () => {
    await withServer(new Hono(), async (client, socketPath) => {
      await expect(serverOf(new Hono(), socketPath).start()).rejects.toMatchObject({
        code: 'already-running',
        message: expect.stringContaining(
          `fixture is already running here as process ${process.pid}`,
        ),
      });
      expect(await client.process()).toMatchObject({ name: 'fixture' });
    });
  });

  test('refuses a path that holds something else, and one that is too long', async () => {
    using directory = temporaryDirectory();
    const filePath = join(directory.path, 'precious');
    writeFileSync(filePath, 'text');
    await expect(serverOf(new Hono(), filePath).start()).rejects.toMatchObject({
      code: 'socket-path-taken',
    });
    const longPath = join(directory.path, 'x'.repeat(120));
    await expect(serverOf(new Hono(), longPath).start()).rejects.toMatchObject({
      code: 'socket-path-too-long',
      context: { pathBytesMax: 107 },
    });
  });

  test('stop removes the socket, ends open streams and may be called twice', async () => {
    using directory = temporaryDirectory();
    const socketPath = join(directory.path, 'fixture.sock');
    const app = new Hono().get('/endless', (context) =>
      stream(context, async (output) => {
        await output.writeln('1');
        await new Promise(() => {});
      }),
    );
    const server = serverOf(app, socketPath);
    await server.start();
    const items = clientOf(socketPath).stream('/endless', z.int());
    expect(await items.next()).toEqual({ done: false, value: 1 });
    await server.stop();
    await server.stop();
    await expect(items.next()).rejects.toMatchObject({ code: 'interrupted' });
    expect(() => statSync(socketPath)).toThrow('ENOENT');
  });
});

describe('ControlClient', () => {
  test('sends and receives JSON that the schema checks', async () => {
    const app = new Hono().post('/twice', async (context) => {
      const { value } = z.object({ value: z.number() }).parse(await context.req.json());
      return context.json({ value: value * 2 });
    });
    await withServer(app, async (client) => {
      const answer = await client.call(
        'POST',
        '/twice',
        { value: 21 },
        z.object({ value: z.number() }),
      );
      expect(answer).toEqual({ value: 42 });
      await expect(client.call('POST', '/twice', { value: 1 }, z.string())).rejects.toMatchObject({
        code: 'unexpected-answer',
      });
    });
  });

  test('not running: says which command starts it', async () => {
    await expect(clientOf('/nonexistent/fixture.sock').process()).rejects.toMatchObject({
      code: 'not-running',
      message: expect.stringContaining('the fixture is not running'),
    });
    await expect(clientOf('/nonexistent/fixture.sock').process()).rejects.toThrow(
      'start it with: isobar up',
    );
  });

  test("carries the peer's error code, message and problems", async () => {
    const app = new Hono();
    app.get('/conflict', () => {
      throw new OperatingError('revision-conflict', 'revision 2 is current, not 1: show it again');
    });
    app.get('/later', () => {
      throw new OperatingError('busy', 'busy', { retryable: true });
    });
    app.get('/config', () => {
      throw new ConfigError('config-invalid', 'request', [
        { path: 'id', value: '"a b"', rule: 'letters' },
        { path: 'probe', value: '7', rule: 'object' },
      ]);
    });
    app.get('/bug', () => {
      throw new Error('secret detail');
    });
    await withServer(app, async (client) => {
      await expect(client.get('/conflict', z.unknown())).rejects.toMatchObject({
        code: 'refused',
        peerCode: 'revision-conflict',
        message: 'revision 2 is current, not 1: show it again',
      });
      await expect(client.get('/later', z.unknown())).rejects.toMatchObject({ peerCode: 'busy' });
      await expect(client.get('/config', z.unknown())).rejects.toMatchObject({
        message: 'request: 2 problem(s)\n  id = "a b": letters\n  probe = 7: object',
      });
      await expect(client.get('/bug', z.unknown())).rejects.toMatchObject({
        peerCode: 'internal',
        message: expect.not.stringContaining('secret'),
      });
      await expect(client.get('/nowhere', z.unknown())).rejects.toMatchObject({
        peerCode: 'not-found',
      });
    });
  });

  test('gives up on a peer that stays silent', async () => {
    using directory = temporaryDirectory();
    mkdirSync(join(directory.path, 'run'));
    const socketPath = join(directory.path, 'run', 'mute.sock');
    const mute = createServer(() => {});
    await new Promise<void>((resolve) => {
      mute.listen(socketPath, resolve);
    });
    await expect(clientOf(socketPath, 30).process()).rejects.toMatchObject({
      code: 'interrupted',
      message: expect.stringContaining('did not answer within 30 ms'),
    });
    mute.close();
  });

  test('reads lines that arrive in pieces, and skips heartbeats', async () => {
    const app = new Hono().get('/lines', (context) =>
      stream(context, async (output) => {
        for (const piece of ['{"n"', ':1}\n\n', '\n{"n":2}\n{"n":', '3}']) {
          await output.write(piece);
          await output.sleep(1);
        }
      }),
    );
    await withServer(app, async (client) => {
      const seen: number[] = [];
      for await (const { n } of client.stream('/lines', z.object({ n: z.int() }))) seen.push(n);
      expect(seen).toEqual([1, 2, 3]);
    });
  });
});

describe('follow', () => {
  test('reconnects to a restarted peer and goes on after the newest item', async () => {
    using directory = temporaryDirectory();
    const socketPath = join(directory.path, 'fixture.sock');
    /** Two items each connection, then silence. */
    const app = new Hono().get('/items', (context) =>
      stream(context, async (output) => {
        const after = Number(context.req.query('after'));
        await output.writeln(String(after + 1));
        await output.writeln(String(after + 2));
        await new Promise(() => {});
      }),
    );
    let server = serverOf(app, socketPath);
    await server.start();
    const abort = new AbortController();
    const events: (number | string)[] = [];
    const items = follow(
      clientOf(socketPath),
      z.int(),
      {
        pathAfter: (newest) => `/items?after=${newest ?? 0}`,
        onLost: () => {
          events.push('lost');
        },
        onRestored: () => {
          events.push('restored');
        },
        signal: abort.signal,
      },
      { clock, random: new SystemRandom() },
    );
    for await (const item of items) {
      events.push(item);
      if (item === 2) {
        await server.stop();
        server = serverOf(app, socketPath);
        await server.start();
      }
      if (item === 4) abort.abort();
    }
    await server.stop();
    expect(events).toEqual([1, 2, 'lost', 'restored', 3, 4]);
  });

  test('a peer that was never started is an error at once', async () => {
    const items = follow(
      clientOf('/nonexistent/fixture.sock'),
      z.int(),
      {
        pathAfter: () => '/items',
        onLost: () => {},
        onRestored: () => {},
        signal: new AbortController().signal,
      },
      { clock, random: new SystemRandom() },
    );
    await expect(items.next()).rejects.toMatchObject({ code: 'not-running' });
  });
});
