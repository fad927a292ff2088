import { execFileSync } from 'node:child_process';

import { programObstacle, rootObstacle, type Obstacle } from './requirements.ts';

/** A packet of Ethernet: the kernel's loopback has larger ones, which no queue of a slow link takes. */
const packetBytes = 1_500;

/** Why networks of their own can't be made here. */
export function networkNamespaceObstacle(): Obstacle {
  const missing =
    rootObstacle() ?? programObstacle('ip', 'iproute2') ?? programObstacle('tc', 'iproute2');
  if (missing !== undefined) return missing;
  try {
    using network = new NetworkNamespace();
    network.slow(64);
    return undefined;
  } catch (error) {
    return `this kernel makes no network with tc tbf: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/**
 * A network of its own that processes reach each other on, by 127.0.0.1: the kernel's queues, losses and retransmissions,
 * on every hop between them alike.
 */
export class NetworkNamespace implements Disposable {
  readonly #name = `isobar-${process.pid}-${performance.now().toString().replace('.', '-')}`;
  /** What a command begins with that runs in it. */
  readonly command: readonly [string, ...string[]] = ['ip', 'netns', 'exec', this.#name];

  constructor() {
    execFileSync('ip', ['netns', 'add', this.#name], { stdio: 'pipe' });
    this.#run('ip', 'link', 'set', 'lo', 'mtu', String(packetBytes));
    this.restore();
  }

  /** What does not get through within 400 ms is dropped. */
  slow(kilobitsPerSecond: number): void {
    const rate = `${kilobitsPerSecond}kbit`;
    this.#run(
      'tc',
      ...'qdisc replace dev lo root tbf burst 4kb latency 400ms rate'.split(' '),
      rate,
    );
  }

  /** Packets that the slow link has dropped. */
  droppedCount(): number {
    return Number(/dropped (\d+)/.exec(this.#run('tc', '-s', 'qdisc', 'show', 'dev', 'lo'))?.[1]);
  }

  fast(): void {
    this.#run('tc', 'qdisc', 'del', 'dev', 'lo', 'root');
  }

  /** Packets go nowhere from now on, and no connection hears of it. */
  cut(): void {
    this.#run('ip', 'link', 'set', 'lo', 'down');
  }

  restore(): void {
    this.#run('ip', 'link', 'set', 'lo', 'up');
  }

  [Symbol.dispose](): void {
    execFileSync('ip', ['netns', 'del', this.#name], { stdio: 'pipe' });
  }

  #run(...command: readonly string[]): string {
    const [program, ...before] = this.command;
    return execFileSync(program, [...before, ...command], { stdio: 'pipe', encoding: 'utf8' });
  }
}
