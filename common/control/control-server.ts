import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { connect } from 'node:net';
import { dirname } from 'node:path';

import { getRequestListener } from '@hono/node-server';
import { Hono } from 'hono';

import { ConfigError } from '../config/load-config.ts';
import type { Clock } from '../runtime/clock.ts';
import type { Log } from '../runtime/log.ts';
import { makeDirectory } from '../runtime/make-directory.ts';
import { OperatingError, systemErrorCode } from '../runtime/operating-error.ts';
import type { Service } from '../runtime/service.ts';
import {
  processPath,
  socketPathBytesMax,
  socketPathProblem,
  type ErrorAnswer,
  type ProcessAnswer,
} from './control-answer.ts';
import { ControlClient, ControlError } from './control-client.ts';

export type ControlServerErrorCode =
  | 'socket-path-too-long'
  | 'socket-path-taken'
  | 'already-running'
  | 'socket-unusable';

/** A control socket that can't be opened; the message says what to do. */
export class ControlServerError extends OperatingError<ControlServerErrorCode> {
  override readonly name = 'ControlServerError';
}

export interface ControlServerOptions {
  /** Names the process to whoever asks. */
  readonly name: string;
  readonly socketPath: string;
}

/**
 * Serves `app` by HTTP over a unix socket that only this user (and root) can open: mode 0600 in a directory that is made
 * with 0700 when it is missing. A socket that a killed process left is removed; one that is served is left alone.
 * Errors that a handler throws become {@link ErrorAnswer}s: a ConfigError 422 with its problems, another OperatingError
 * 409, or 503 when it is retryable; anything else 500 without details, which are logged.
 * `start` throws {@link ControlServerError}.
 */
export class ControlServer implements Service {
  readonly name: string;
  readonly #socketPath: string;
  readonly #app: Hono;
  readonly #clock: Clock;
  readonly #log: Log;
  #server: Server | undefined;

  constructor(
    app: Hono,
    dependencies: { readonly clock: Clock; readonly log: Log },
    options: ControlServerOptions,
  ) {
    this.name = options.name;
    this.#socketPath = options.socketPath;
    this.#app = app;
    this.#clock = dependencies.clock;
    this.#log = dependencies.log;
  }

  async start(): Promise<void> {
    const path = this.#socketPath;
    const problem = socketPathProblem(path);
    if (problem !== undefined) {
      throw new ControlServerError('socket-path-too-long', problem, {
        context: { pathBytes: Buffer.byteLength(path), pathBytesMax: socketPathBytesMax },
      });
    }
    makeDirectory(dirname(path), 0o700);
    const listener = getRequestListener(this.#wrappedApp().fetch);
    const server = createServer((request, response) => {
      void listener(request, response);
    });
    try {
      await listenPrivately(server, path);
    } catch (error) {
      if (systemErrorCode(error) !== 'EADDRINUSE') throw unusable(path, error);
      await removeStaleSocket(path);
      await listenPrivately(server, path).catch((cause: unknown) => {
        throw unusable(path, cause);
      });
    }
    this.#server = server;
  }

  /** Ends open streams too: a watcher reconnects to whoever comes next. Closing removes the socket. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    await new Promise<void>((resolve, reject) => {
      server.close((error) => {
        if (error === undefined) resolve();
        else reject(error);
      });
      server.closeAllConnections();
    });
  }

  #wrappedApp(): Hono {
    const who: ProcessAnswer = {
      name: this.name,
      pid: process.pid,
      startedAtUs: this.#clock.wallUs(),
    };
    const app = new Hono();
    app.get(processPath, (context) => context.json(who));
    app.route('/', this.#app);
    app.notFound((context) =>
      context.json(errorAnswer('not-found', `${this.name} has no ${context.req.path}`), 404),
    );
    app.onError((error, context) => {
      if (error instanceof ConfigError) {
        return context.json(errorAnswer(error.code, error.message, error.problems), 422);
      }
      if (error instanceof OperatingError) {
        return context.json(errorAnswer(error.code, error.message), error.retryable ? 503 : 409);
      }
      this.#log.error('control-request-failed', {
        path: context.req.path,
        error: error.stack ?? error.message,
      });
      return context.json(
        errorAnswer('internal', `${this.name} failed; its log has the details`),
        500,
      );
    });
    return app;
  }
}

function errorAnswer(
  code: string,
  message: string,
  problems?: readonly { path: string; value: string; rule: string }[],
): ErrorAnswer {
  return {
    error: { code, message, ...(problems === undefined ? {} : { problems: [...problems] }) },
  };
}

async function listenPrivately(server: Server, path: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
  chmodSync(path, 0o600);
}

/** @throws ControlServerError when something other than a socket is there, or a process answers on it. */
async function removeStaleSocket(path: string): Promise<void> {
  if (!lstatSync(path).isSocket()) {
    throw new ControlServerError(
      'socket-path-taken',
      `${path} exists and is no socket: remove it, or use another data directory`,
    );
  }
  if (await isServed(path)) {
    throw new ControlServerError('already-running', await describeOccupant(path));
  }
  unlinkSync(path);
}

async function isServed(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', (error) => {
      resolve(systemErrorCode(error) !== 'ECONNREFUSED');
    });
  });
}

async function describeOccupant(path: string): Promise<string> {
  const client = new ControlClient({ socketPath: path, peer: 'the process', startCommand: '' });
  try {
    const who = await client.process();
    return `${who.name} is already running here as process ${who.pid} (${path}): stop it first, or use another data directory`;
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    return `another process serves ${path}: stop it first, or use another data directory`;
  }
}

function unusable(path: string, cause: unknown): ControlServerError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new ControlServerError('socket-unusable', `cannot open the control socket: ${reason}`, {
    cause,
    context: { path },
  });
}
