import type { Socket } from 'node:net';

/** Bits of a length byte, and the bit that says another one follows (MQTT 3.1.1, 2.2.3). */
const lengthBits = 7;
const lengthContinues = 0x80;
const lengthBytesMax = 4;
/** The kind of a packet is in the upper half of its first byte; PUBLISH alone brings a payload (2.2.1). */
const kindShift = 4;
const publishKind = 3;
/** A SUBSCRIBE with the filters of a relation has some hundred bytes; each filter costs a broker time. */
const controlPacketBytesMax = 16 * 1_024;

/**
 * Follows MQTT's framing through a byte stream and tells when a PUBLISH announces more than `publishBytesMax`, or any
 * other packet more than 16 KiB.
 */
export class PacketSizeGuard {
  readonly #publishBytesMax: number;
  /** Of the current packet. */
  #packetBytesMax = 0;
  /** Bytes of the current packet that are still to come, without its header. */
  #bodyBytesLeft = 0;
  #lengthBytesSeen = -1;
  #length = 0;

  constructor(publishBytesMax: number) {
    this.#publishBytesMax = publishBytesMax;
  }

  /** False once a packet is too large or its length no length; what follows is then not to be looked at. */
  accepts(bytes: Uint8Array): boolean {
    let position = 0;
    while (position < bytes.length) {
      if (this.#bodyBytesLeft > 0) {
        const skipped = Math.min(this.#bodyBytesLeft, bytes.length - position);
        this.#bodyBytesLeft -= skipped;
        position += skipped;
        continue;
      }
      const byte = bytes[position] ?? 0;
      position += 1;
      if (this.#lengthBytesSeen < 0) this.#takeKind(byte);
      else if (!this.#takeLengthByte(byte)) return false;
    }
    return true;
  }

  #takeKind(byte: number): void {
    const isPublish = byte >> kindShift === publishKind;
    this.#packetBytesMax = isPublish
      ? this.#publishBytesMax
      : Math.min(this.#publishBytesMax, controlPacketBytesMax);
    this.#lengthBytesSeen = 0;
  }

  #takeLengthByte(byte: number): boolean {
    this.#length += (byte & ~lengthContinues) * 2 ** (lengthBits * this.#lengthBytesSeen);
    this.#lengthBytesSeen += 1;
    if (this.#length > this.#packetBytesMax) return false;
    if ((byte & lengthContinues) !== 0) return this.#lengthBytesSeen < lengthBytesMax;
    this.#bodyBytesLeft = this.#length;
    this.#length = 0;
    this.#lengthBytesSeen = -1;
    return true;
  }
}

/**
 * Cuts `socket` before a packet larger than a {@link PacketSizeGuard} accepts is collected in memory: the MQTT parsers
 * have no such bound. To be called before the parser listens; `onRefused` is called at most once.
 */
export function guardPacketSize(
  socket: Socket,
  publishBytesMax: number,
  onRefused: () => void,
): void {
  const guard = new PacketSizeGuard(publishBytesMax);
  socket.on('data', (bytes: Uint8Array) => {
    if (socket.destroyed || guard.accepts(bytes)) return;
    onRefused();
    socket.destroy();
  });
}
