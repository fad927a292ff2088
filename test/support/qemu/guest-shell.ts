import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

export interface GuestCommandEnd {
  readonly exitCode: number;
  /** Standard output and error in the order in which they were written. */
  readonly output: string;
}

const commandTimeoutMs = 30_000;

/** Runs commands in a guest, one after the other, over the virtio-serial port that its init serves. */
export class GuestShell {
  readonly #socket: Socket;
  readonly #lines: AsyncIterator<string>;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  }

  /** To be called before the guest has booted, as what a port says to nobody is lost. */
  static async connect(socketPath: string): Promise<GuestShell> {
    const socket = connect(socketPath);
    await once(socket, 'connect');
    socket.on('error', () => {
      // The end of its lines says it to whoever waits.
    });
    return new GuestShell(socket);
  }

  /** Resolves when the guest has booted. */
  async ready(timeoutMs: number): Promise<void> {
    const line = await this.#answer(timeoutMs, 'boot');
    if (line !== 'ready') throw new Error(`the guest said ${line}`);
  }

  /** Runs a script by the guest's dash to its end. */
  async try(script: string, timeoutMs: number = commandTimeoutMs): Promise<GuestCommandEnd> {
    const running = this.#last.then(async () => {
      this.#socket.write(`${Buffer.from(script).toString('base64')}\n`);
      const line = await this.#answer(timeoutMs, script);
      const [exitCode = '', output = ''] = line.split(' ');
      return { exitCode: Number(exitCode), output: Buffer.from(output, 'base64').toString() };
    });
    this.#last = running.catch(() => {});
    return running;
  }

  /** The same for a script that must succeed; returns its output. */
  async sh(script: string, timeoutMs?: number): Promise<string> {
    const { exitCode, output } = await this.try(script, timeoutMs);
    if (exitCode !== 0) throw new Error(`exit code ${exitCode} in the guest: ${script}\n${output}`);
    return output;
  }

  close(): void {
    this.#socket.destroy();
  }

  async #answer(timeoutMs: number, of: string): Promise<string> {
    const signal = AbortSignal.timeout(timeoutMs);
    const timedOut = once(signal, 'abort').then((): never => {
      throw new Error(`the guest did not answer within ${timeoutMs} ms: ${of}`);
    });
    timedOut.catch(() => {
      // The answer came first.
    });
    const { done, value } = await Promise.race([this.#lines.next(), timedOut]);
    if (done === true) throw new Error(`the guest ended: ${of}`);
    return value;
  }
}
