import { writeToStream } from 'mqtt-packet';

/**
 * Has MQTT packets written without the cache of all 65,536 two-byte numbers, which takes 15 MiB and 45 ms with the first packet. A packet
 * has one or two of them. Holds for the whole process, client and broker; to be called before either writes.
 */
export function sparePacketCache(): void {
  writeToStream.cacheNumbers = false;
}
