import { setFlagsFromString } from 'node:v8';

/**
 * Keeps V8's young generation at the size that it has now (1 MiB a half at the start of a process), in place of up to 16 MiB a half: a
 * process that only passes bytes on fills any young generation with what dies at once, and scavenging takes time for what survives alone.
 * No cost of CPU could be measured at 10,000 measurements a second. To be called before work begins.
 */
export function keepYoungGenerationSmall(): void {
  setFlagsFromString('--semi-space-growth-factor=1');
}
