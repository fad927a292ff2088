import type { ControlClient } from '../common/control/control-client.ts';
import type { Clock } from '../common/runtime/clock.ts';
import type { Random } from '../common/runtime/random.ts';
import type { DataDirectory } from './data-directory.ts';
import type { Style } from './text/style.ts';

/** Everything that a command needs from the world outside; tests give their own. */
export interface CommandContext {
  readonly clock: Clock;
  readonly random: Random;
  readonly environment: NodeJS.ProcessEnv;
  readonly userId: number;
  readonly output: Output;
  /** For commands that run until they are told: aborted by Ctrl-C, and by a reader that closed the pipe. */
  readonly interruptible: () => { readonly signal: AbortSignal; readonly release: () => void };
  readonly readStandardInput: () => Promise<string>;
  /** One line from the person at the terminal; undefined where there is none. */
  readonly ask?: (question: string) => Promise<string>;
  /** Any bytes, at most `bytesMax` and one more, by which the caller sees that there were too many. */
  readonly readStandardInputBytes: (bytesMax: number) => Promise<Uint8Array>;
  /** Exit code other than 0 without an error: the command did print why. */
  readonly setExitCode: (exitCode: number) => void;
}

/** Where a command prints. */
export interface Output {
  readonly style: Style;
  /** For standard error, which may be a terminal where standard output is none. */
  readonly errorStyle: Style;
  /** Cells of the terminal's line; undefined for pipes and files, which get everything uncut. */
  readonly columns: number | undefined;
  /** Data, on standard output; resolves when there is room for more, so that a slow reader slows us down. */
  line(text: string): Promise<void>;
  /** Data that is not text, on standard output, as it is. */
  bytes(content: Uint8Array): Promise<void>;
  /** Remarks, on standard error, so that they never mix with data. */
  remark(text: string): void;
}

/** Options that every command has. */
export interface GlobalOptions {
  readonly dataDir?: string;
  readonly debug?: boolean;
}

/** Options of commands that may talk to one process that runs alone. */
export interface ProcessOptions extends GlobalOptions {
  /** Its configuration file. */
  readonly config?: string;
}

/** The control sockets of the instance that a command talks to. */
export interface Clients {
  readonly directory: DataDirectory;
  readonly up: ControlClient;
  readonly reader: ControlClient;
  readonly collector: ControlClient;
  readonly guest: ControlClient;
}
