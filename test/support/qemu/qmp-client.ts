import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

import { z } from 'zod';

/** A greeting, an answer (`id` with `return` or `error`) or an event. */
const messageSchema = z.object({
  id: z.int().optional(),
  return: z.unknown().optional(),
  error: z.object({ desc: z.string() }).optional(),
  event: z.string().optional(),
  data: z.record(z.string(), z.unknown()).optional(),
});
type QmpMessage = z.infer<typeof messageSchema>;

/** What QEMU said unasked. */
export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

interface Waiting {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** QEMU's machine protocol (docs/interop/qmp-spec.rst of QEMU) on its unix socket. */
export class QmpClient {
  /** All that came, oldest first. */
  readonly events: QmpEvent[] = [];
  readonly #socket: Socket;
  readonly #waiting = new Map<number, Waiting>();
  #idLast = 0;

  private constructor(socket: Socket) {
    this.#socket = socket;
    createInterface({ input: socket }).on('line', (line) => {
      this.#take(messageSchema.parse(JSON.parse(line)));
    });
    socket.on('error', () => {
      // Its close follows and says it to whoever waits.
    });
    socket.on('close', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('QEMU ended'));
      this.#waiting.clear();
    });
  }

  static async connect(socketPath: string): Promise<QmpClient> {
    const socket = connect(socketPath);
    await once(socket, 'connect');
    const client = new QmpClient(socket);
    await client.execute('qmp_capabilities');
    return client;
  }

  /** The command's result. Rejects with QEMU's own words. */
  execute(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    this.#idLast += 1;
    const id = this.#idLast;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(message: QmpMessage): void {
    if (message.event !== undefined) {
      this.events.push({ event: message.event, data: message.data ?? {} });
      return;
    }
    if (message.id === undefined) return;
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.error !== undefined) waiting?.reject(new Error(`QEMU: ${message.error.desc}`));
    else waiting?.resolve(message.return);
  }
}
