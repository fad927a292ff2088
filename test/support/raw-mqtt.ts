import { once } from 'node:events';
import type { Socket } from 'node:net';

/** Packets of MQTT 3.1.1, for clients that no library would be. */
export const mqttPackets = {
  connect: (clientId: string): Buffer =>
    packet(0x10, Buffer.concat([text('MQTT'), Buffer.from([4, 0b10]), uint16(0), text(clientId)])),
  subscribe: (filters: readonly string[]): Buffer => {
    const entries = filters.flatMap((filter) => [text(filter), Buffer.from([1])]);
    return packet(0x82, Buffer.concat([uint16(1), ...entries]));
  },
  /** QoS 0. */
  publish: (topic: string, payload: Uint8Array): Buffer =>
    packet(0x30, Buffer.concat([text(topic), payload])),
} as const;

/** `header`: the kind of the packet and its flags (2.2). */
export function packet(header: number, body: Uint8Array): Buffer {
  const length: number[] = [];
  let left = body.length;
  do {
    const digit = left % 128;
    left = Math.floor(left / 128);
    length.push(left > 0 ? digit + 128 : digit);
  } while (left > 0);
  return Buffer.concat([Buffer.from([header, ...length]), body]);
}

/** Writes as fast as the other end reads, until the connection ends. */
export async function writeAll(socket: Socket, chunks: Iterable<Uint8Array>): Promise<void> {
  const closed = once(socket, 'close');
  for (const chunk of chunks) {
    if (socket.destroyed) return;
    if (!socket.write(chunk)) await Promise.race([once(socket, 'drain'), closed]);
  }
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([uint16(bytes.length), bytes]);
}

function uint16(value: number): Buffer {
  return Buffer.from([Math.floor(value / 256), value % 256]);
}
