import { readFileSync } from 'node:fs';

/** The machine's boot: which one, and how long ago, sleep included (CLOCK_BOOTTIME). */
export interface BootClock {
  /** Differs after each boot. */
  readonly bootId: string;
  bootTimeUs(): number;
}

/** Of the kernel: /proc/sys/kernel/random/boot_id and /proc/uptime, whose resolution is 10 ms. */
export class SystemBootClock implements BootClock {
  readonly bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();

  bootTimeUs(): number {
    const [seconds = '0'] = readFileSync('/proc/uptime', 'utf8').split(' ');
    return Math.round(Number(seconds) * 1_000_000);
  }
}
