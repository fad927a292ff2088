import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fdatasyncSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { userInfo } from 'node:os';
import { dirname, join } from 'node:path';

import { MqttClient, mqttClientDefaults } from '../../broker/mqtt/mqtt-client.ts';
import { SystemClock } from '../../common/runtime/clock.ts';
import { silentLog } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { eventually } from '../../test/support/eventually.ts';
import {
  freePort,
  prepareExternalBroker,
  prepareForeignSubscriber,
} from '../../test/support/external-broker.ts';
import { monotonicMs } from '../running-instance.ts';
import { Arrivals } from './arrivals.ts';
import { allArrived, type Delivered, type Load } from './mount-load.ts';

const brokerCount = 4;
const topic = 'kpi';
const startTimeoutMs = 20_000;

/**
 * What the same way costs with a file, `tail -F`, `mosquitto_pub` and four Mosquitto brokers that are bridged, QoS 1,
 * sessions kept and saved: three hops without TLS, and no row, frame or store. A line is durable before it counts as sent.
 */
export class MosquittoChain implements AsyncDisposable {
  readonly #directory: string;
  readonly #programs: Programs;
  readonly #ports: readonly number[];
  readonly #brokers = new Map<number, ChildProcess>();
  readonly #arrivals = new Arrivals();
  #publisher: ChildProcess | undefined;
  #subscriber: MqttClient | undefined;
  #file = -1;

  private constructor(directory: string, programs: Programs, ports: readonly number[]) {
    this.#directory = directory;
    this.#programs = programs;
    this.#ports = ports;
  }

  /** Starts it; the reason when Mosquitto can't be had here. */
  static async start(directory: string): Promise<MosquittoChain | string> {
    const programs = findPrograms();
    if (typeof programs === 'string') return programs;
    const ports: number[] = [];
    for (let index = 0; index < brokerCount; index += 1) ports.push(await freePort());
    const chain = new MosquittoChain(directory, programs, ports);
    try {
      await chain.#startAll();
    } catch (error) {
      await chain[Symbol.asyncDispose]();
      return `the Mosquitto chain did not start: ${String(error)}`;
    }
    return chain;
  }

  /** One load for each chain: the numbers of a second one would begin at 1 again. */
  async deliver(load: Load): Promise<Delivered> {
    const count = Math.ceil((load.ratePerSecond * load.durationMs) / 1_000);
    const sentAtMs = await this.#append(count, load.ratePerSecond);
    await allArrived(this.#arrivals, count);
    return { sentAtMs, arrivals: this.#arrivals };
  }

  /** 0: at the source; 1, 2: intermediaries; 3: at the reader. */
  run(broker: number): void {
    const config = join(this.#directory, `broker-${broker}.conf`);
    this.#brokers.set(broker, this.#spawn(this.#programs.broker, ['-c', config]));
  }

  /** kill -9; `run` starts it again. */
  async kill(broker: number): Promise<void> {
    const child = this.#brokers.get(broker);
    if (child !== undefined) await end(child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#subscriber?.stop();
    if (this.#publisher !== undefined) await end(this.#publisher);
    for (const child of this.#brokers.values()) await end(child);
    if (this.#file >= 0) closeSync(this.#file);
  }

  async #startAll(): Promise<void> {
    mkdirSync(this.#directory);
    for (let broker = brokerCount - 1; broker >= 0; broker -= 1) {
      this.#configure(broker);
      this.run(broker);
    }
    const client = new MqttClient(
      { clock: new SystemClock(), random: new SystemRandom(), log: silentLog },
      { ...mqttClientDefaults, url: `mqtt://127.0.0.1:${this.#ports.at(-1) ?? 0}` },
    );
    this.#subscriber = client;
    await client.start();
    let hasWarmedUp = false;
    await client.subscribe(topic, 1, (_topic, payload) => {
      const sequence = Number(Buffer.from(payload).toString());
      if (sequence === 0) hasWarmedUp = true;
      else this.#arrivals.take(sequence, monotonicMs());
    });
    const path = join(this.#directory, 'values');
    this.#file = openSync(path, 'a');
    const port = String(this.#ports[0]);
    const publish = `tail -n 0 -F "$1" | "$2" -h 127.0.0.1 -p ${port} -t ${topic} -q 1 -l`;
    this.#publisher = this.#spawn('sh', ['-c', publish, 'sh', path, this.#programs.publisher]);
    await eventually(
      () => {
        writeSync(this.#file, '0\n');
        return hasWarmedUp;
      },
      { timeoutMs: startTimeoutMs, pollMs: 100 },
    );
  }

  #configure(broker: number): void {
    const state = join(this.#directory, `broker-${broker}`);
    mkdirSync(state);
    const next = this.#ports[broker + 1];
    const bridge = [
      'connection next',
      `address 127.0.0.1:${next}`,
      `topic ${topic} out 1`,
      `remote_clientid bridge-${broker}`,
      'cleansession false',
      'restart_timeout 1',
      'notifications false',
    ];
    const lines = [
      `listener ${this.#ports[broker]} 127.0.0.1`,
      'allow_anonymous true',
      'set_tcp_nodelay true',
      'persistence true',
      `persistence_location ${state}/`,
      'autosave_interval 1',
      'max_queued_messages 0',
      `user ${userInfo().username}`,
      ...(next === undefined ? [] : bridge),
    ];
    writeFileSync(join(this.#directory, `broker-${broker}.conf`), `${lines.join('\n')}\n`);
  }

  async #append(count: number, ratePerSecond: number): Promise<Float64Array> {
    const sentAtMs = new Float64Array(count);
    const startMs = monotonicMs();
    const clock = new SystemClock();
    let sent = 0;
    while (sent < count) {
      const due = Math.min(count, ((monotonicMs() - startMs) / 1_000) * ratePerSecond);
      for (; sent < Math.floor(due); sent += 1) {
        writeSync(this.#file, `${sent + 1}\n`);
        fdatasyncSync(this.#file);
        sentAtMs[sent] = monotonicMs();
      }
      if (sent < count) await clock.sleep(1);
    }
    return sentAtMs;
  }

  #spawn(command: string, parameters: readonly string[]): ChildProcess {
    const env = { ...process.env, ...this.#programs.environment };
    // A group of its own: `sh` does not pass a signal on to the programs of its pipe.
    return spawn(command, parameters, { stdio: 'ignore', env, detached: true });
  }
}

interface Programs {
  readonly broker: string;
  readonly publisher: string;
  readonly environment: NodeJS.ProcessEnv;
}

function findPrograms(): Programs | string {
  const broker = prepareExternalBroker('mosquitto');
  if (!broker.ok) return broker.reason;
  const { env, ...subscriber } = prepareForeignSubscriber();
  if (!subscriber.ok) return subscriber.reason;
  const publisher = join(dirname(subscriber.program), 'mosquitto_pub');
  return { broker: broker.program, publisher, environment: env };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  process.kill(-child.pid, 'SIGKILL');
  await exited;
}
