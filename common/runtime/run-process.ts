import { parseArgs } from 'node:util';

import { z } from 'zod';

import { ConfigError, exitCodeConfig, loadConfig } from '../config/load-config.ts';
import { lockDataDirectory } from '../sqlite/data-directory-lock.ts';
import { SystemClock, type Clock } from './clock.ts';
import { createLog, logLevels, type Log, type LogLevel } from './log.ts';
import { OperatingError } from './operating-error.ts';
import { packageVersion } from './package-root.ts';
import { SystemRandom, type Random } from './random.ts';
import type { Service } from './service.ts';
import { listenForStop, type StopSignals } from './stop-signals.ts';

/** What a process gives each of its parts. */
export interface ProcessDependencies {
  /** Its configuration, for messages that name it. */
  readonly configPath: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** For threads, which make their own logs. */
  readonly logLevel: LogLevel;
  /** Stops the process in order, as a first signal does; `reason` goes into its log. */
  readonly requestStop: (reason: string) => void;
}

/** One of our processes: its configuration and how it is put together. */
export interface Program<Schema extends z.ZodType> {
  /** `host-collector`: names the process in logs and errors. */
  readonly name: string;
  readonly schema: Schema;
  /**
   * True when, so configured, the program speaks a protocol of its own over Node's IPC channel; then nobody is told `ready`, and the
   * parent's end is the program's to notice.
   */
  readonly ownsParentChannel?: (config: z.output<Schema>) => boolean;
  /** What the configuration says of it; the command line says more. */
  readonly logLevelOf?: (config: z.output<Schema>) => LogLevel;
  /** What no two processes of this program may work in at a time. */
  readonly dataDirectoryOf?: (config: z.output<Schema>) => string;
  /** Only constructs; work begins with `start`. */
  build(config: z.output<Schema>, dependencies: ProcessDependencies): Service;
}

/** What a child process tells its parent, over Node's IPC channel, once `start` has resolved. */
export const readyMessageSchema = z.strictObject({ kind: z.literal('ready') });

/** EX_USAGE of the shells' convention: the command line is at fault. */
export const exitCodeUsage = 2;

/**
 * The main of every process: `node main.js --config FILE [--check-config] [--log-level LEVEL]`.
 *
 *   parse -> load config -> build -> start -> "ready" to the parent -> SIGINT | SIGTERM | parent gone -> stop
 *
 * One signal drains, a second ends the process at once by that signal. A parent that dies counts as a signal, so that
 * no process outlives `isobar up`. Sets `process.exitCode`: 0 after an orderly stop, 1 for a failing start or stop,
 * 2 for a wrong command line, 78 for a wrong configuration (every problem is printed) or something that this machine lacks.
 *
 * What keeps the process for longer than 2 s after `stop` is logged, and the process ended by SIGKILL.
 * An uncaught error is logged and ends the process by SIGKILL: a crash must not wait for a thread that is blocked in a
 * system call, and every part recovers from kill -9 anyway.
 */
export async function runProcess<Schema extends z.ZodType>(
  program: Program<Schema>,
  commandLine: readonly string[] = process.argv.slice(2),
): Promise<void> {
  const options = parseCommandLine(program.name, commandLine);
  if (options === undefined) return;
  let log = createLog(program.name, options.logLevel ?? 'info');
  const clock = new SystemClock();
  let signals: StopSignals | undefined;
  try {
    const config = loadConfig(program.schema, options.configPath);
    const logLevel = options.logLevel ?? program.logLevelOf?.(config) ?? 'info';
    log = createLog(program.name, logLevel);
    if (options.checksOnly) {
      process.stdout.write(`${options.configPath}: ok\n`);
      return;
    }
    const tellsParent = program.ownsParentChannel?.(config) !== true;
    signals = listenForStop(clock, {
      watchesParent: tellsParent,
      stopNow: (signal) => {
        log.warn('stopping-now', { because: signal });
      },
    });
    const { request: requestStop } = signals;
    const directory = program.dataDirectoryOf?.(config);
    if (directory !== undefined) lockDataDirectory(directory, program.name, log);
    const random = new SystemRandom();
    const service = program.build(config, {
      configPath: options.configPath,
      clock,
      random,
      log,
      logLevel,
      requestStop,
    });
    crashOnUncaught(log);
    await runUntilStopped(service, signals, log, tellsParent);
  } catch (error) {
    signals?.release();
    failBeforeStart(error, log);
    return;
  }
  endWhenLingering(log);
}

interface CommandLine {
  readonly configPath: string;
  readonly checksOnly: boolean;
  /** Without one the configuration says, or it is `info`. */
  readonly logLevel: LogLevel | undefined;
}

/** Answers --help, --version and mistakes itself; then there is nothing to run. */
function parseCommandLine(name: string, commandLine: readonly string[]): CommandLine | undefined {
  const usage = `usage: ${name} --config FILE [--check-config] [--log-level ${logLevels.join('|')}]`;
  try {
    const { values } = parseArgs({
      args: [...commandLine],
      options: {
        config: { type: 'string' },
        'check-config': { type: 'boolean', default: false },
        'log-level': { type: 'string' },
        help: { type: 'boolean', short: 'h', default: false },
        version: { type: 'boolean', default: false },
      },
    });
    if (values.help || values.version) {
      process.stdout.write(`${values.help ? usage : packageVersion()}\n`);
      return undefined;
    }
    const { 'log-level': given } = values;
    const logLevel = logLevels.find((level) => level === given);
    if (values.config === undefined) throw new TypeError('--config FILE is missing');
    if (given !== undefined && logLevel === undefined) {
      throw new TypeError(`unknown log level ${given}`);
    }
    return { configPath: values.config, checksOnly: values['check-config'], logLevel };
  } catch (error) {
    process.stderr.write(`${name}: ${messageOf(error)}\n${usage}\n`);
    process.exitCode = exitCodeUsage;
    return undefined;
  }
}

function failBeforeStart(error: unknown, log: Log): void {
  if (error instanceof ConfigError) {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = exitCodeConfig;
    return;
  }
  logFailure(log, 'build-failed', error);
  process.exitCode = 1;
}

async function runUntilStopped(
  service: Service,
  signals: StopSignals,
  log: Log,
  tellsParent: boolean,
): Promise<void> {
  try {
    await service.start();
    log.info('started', { pid: process.pid });
    if (tellsParent) process.send?.({ kind: 'ready' });
    log.info('stopping', { because: await signals.requested });
  } catch (error) {
    logFailure(log, 'start-failed', error);
    const needsSetup = error instanceof OperatingError && error.needsSetup;
    process.exitCode = needsSetup ? exitCodeConfig : 1;
  }
  try {
    await service.stop();
    log.info('stopped');
  } catch (error) {
    logFailure(log, 'stop-failed', error);
    process.exitCode = 1;
  } finally {
    signals.release();
  }
}

/** After `stop` nothing should keep the process; a part that does is named, and does not get its way. */
const lingerMaxMs = 2_000;

function endWhenLingering(log: Log): void {
  new SystemClock().after(lingerMaxMs, () => {
    log.error('lingering', { resources: process.getActiveResourcesInfo() });
    process.kill(process.pid, 'SIGKILL');
  });
}

function crashOnUncaught(log: Log): void {
  const crash = (error: unknown): void => {
    logFailure(log, 'crashed', error);
    process.kill(process.pid, 'SIGKILL');
  };
  process.on('uncaughtException', crash);
  process.on('unhandledRejection', crash);
}

/** Operating errors need no stack; a programmer error is useless without one. */
function logFailure(log: Log, event: string, error: unknown): void {
  if (error instanceof AggregateError) {
    for (const each of error.errors) logFailure(log, event, each);
    return;
  }
  if (error instanceof OperatingError) {
    log.error(event, { code: error.code, message: error.message, ...error.context });
    return;
  }
  log.error(event, { error: error instanceof Error ? (error.stack ?? error.message) : error });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
