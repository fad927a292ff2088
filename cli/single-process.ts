import { join } from 'node:path';

import { z } from 'zod';

import { loadConfig } from '../common/config/load-config.ts';
import { processAnswerSchema, processPath } from '../common/control/control-answer.ts';
import {
  ControlClient,
  type ControlClientOptions,
  type ControlMethod,
} from '../common/control/control-client.ts';
import { documentKinds } from './process-kinds.ts';
import { UsageError } from './usage-error.ts';

/** Processes that may run alone, by the name under which they answer. */
export const singleProcesses = {
  'guest-agent': {
    peer: 'the guest agent',
    run: 'isobar guest run',
    ask: ['isobar guest status', 'isobar status'],
  },
  'host-collector': {
    peer: 'the host collector',
    run: 'isobar collector run',
    ask: ['isobar status', 'isobar vm list'],
  },
  relay: { peer: 'the relay', run: 'isobar relay run', ask: ['isobar relay status'] },
  'primary-site': {
    peer: 'the reader (primary-site)',
    run: 'isobar site run',
    ask: ['isobar status', 'isobar query', 'isobar watch'],
  },
} as const;
export type SingleProcess = keyof typeof singleProcesses;

/** What every process's configuration has of it. */
const placeSchema = z.looseObject({
  dataDirectory: z.string().min(1),
  controlSocket: z.string().min(1).optional(),
});

/**
 * A client of the process that runs with a configuration file, which must be a `name`. Constructing it reads the file alone.
 * @throws ConfigError
 */
export function connectProcess(file: string, name: SingleProcess): ControlClient {
  const { peer, run } = singleProcesses[name];
  const options = { socketPath: socketPathOf(file), peer, startCommand: `${run} --config ${file}` };
  return new ExpectingClient(options, name, file);
}

/**
 * As {@link connectProcess}, of whichever process.
 * @throws ConfigError
 */
export function connectAnyProcess(file: string): ControlClient {
  const runs = kindsOf(file).map((name) => `${singleProcesses[name].run} --config ${file}`);
  return new ControlClient({
    socketPath: socketPathOf(file),
    peer: 'the process of this configuration',
    startCommand: runs.join(', or '),
  });
}

/** Asks who is there before it asks anything else, so that the answer of another kind of process puzzles nobody. */
class ExpectingClient extends ControlClient {
  readonly #name: SingleProcess;
  readonly #file: string;

  constructor(options: ControlClientOptions, name: SingleProcess, file: string) {
    super(options);
    this.#name = name;
    this.#file = file;
  }

  override async call<Schema extends z.ZodType>(
    method: ControlMethod,
    path: string,
    body: unknown,
    schema: Schema,
  ): Promise<z.output<Schema>> {
    await this.#expect();
    return super.call(method, path, body, schema);
  }

  override async *stream<Schema extends z.ZodType>(
    ...request: Parameters<typeof ControlClient.prototype.stream<Schema>>
  ): AsyncGenerator<z.output<Schema>, void> {
    await this.#expect();
    yield* super.stream(...request);
  }

  async #expect(): Promise<void> {
    const { name } = await super.call('GET', processPath, undefined, processAnswerSchema);
    if (name === this.#name) return;
    const asks = isSingleProcess(name) ? singleProcesses[name].ask : [];
    const hints = asks.map((ask) => `${ask} --config ${this.#file}`).join(', or ');
    throw new UsageError(
      `a ${name} runs with ${this.#file}, and ${singleProcesses[this.#name].peer} was asked for${hints === '' ? '' : `: ${hints}`}`,
    );
  }
}

function socketPathOf(file: string): string {
  const { dataDirectory, controlSocket } = loadConfig(placeSchema, file);
  return controlSocket ?? join(dataDirectory, 'control.sock');
}

/** What the configuration may be of: all, when it is of none. */
function kindsOf(file: string): readonly SingleProcess[] {
  const document = loadConfig(placeSchema, file);
  const names = Object.keys(singleProcesses).filter((name) => isSingleProcess(name));
  const fitting = names.filter((name) => documentKinds[name]?.schema.safeParse(document).success);
  return fitting.length === 0 ? names : fitting;
}

function isSingleProcess(name: string): name is SingleProcess {
  return Object.hasOwn(singleProcesses, name);
}
