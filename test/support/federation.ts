import { EmbeddedBroker, embeddedBrokerDefaults } from '../../broker/mqtt/embedded-broker.ts';
import { MqttClient, mqttClientDefaults } from '../../broker/mqtt/mqtt-client.ts';
import {
  neighbourListenerDefaults,
  type NeighbourListenerOptions,
} from '../../broker/mqtt/neighbour-listener.ts';
import {
  FileTlsIdentity,
  fileTlsIdentityDefaults,
} from '../../common/identity/file-tls-identity.ts';
import { SystemClock, type Clock } from '../../common/runtime/clock.ts';
import { silentLog, type Log } from '../../common/runtime/log.ts';
import { SystemRandom } from '../../common/runtime/random.ts';
import { temporaryDirectory } from './temporary-directory.ts';

/** Sites, brokers and clients of one test; `close` ends them all. */
export class Federation {
  readonly #cleanUp: (() => void | Promise<void>)[] = [];
  readonly parent: string;

  constructor() {
    const directory = temporaryDirectory();
    this.parent = directory.path;
    this.onClose(() => {
      directory[Symbol.dispose]();
    });
  }

  onClose(act: () => void | Promise<void>): void {
    this.#cleanUp.push(act);
  }

  async close(): Promise<void> {
    for (const act of this.#cleanUp.splice(0).toReversed()) await act();
  }

  /** The watched identity of a site directory; nothing in it is renewed. */
  async identity(directory: string, clock: Clock = new SystemClock()): Promise<FileTlsIdentity> {
    const identity = new FileTlsIdentity(
      { clock, log: silentLog },
      { ...fileTlsIdentityDefaults, directory },
    );
    await identity.start();
    this.onClose(() => identity.stop());
    return identity;
  }

  /** A broker that serves the neighbours of `identity`. */
  async broker(
    identity: FileTlsIdentity,
    options: Partial<NeighbourListenerOptions> = {},
    deps: { readonly log?: Log; readonly clock?: Clock } = {},
  ): Promise<EmbeddedBroker> {
    const broker = new EmbeddedBroker(
      { log: silentLog, ...deps },
      {
        ...embeddedBrokerDefaults,
        neighbours: {
          ...neighbourListenerDefaults,
          host: '127.0.0.1',
          port: 0,
          identity,
          roleOf: (relation) =>
            identity.document.neighbours.find((each) => each.relation === relation)?.role,
          ...options,
        },
      },
    );
    await broker.start();
    this.onClose(() => broker.stop());
    return broker;
  }

  /** A client that dials the neighbour of `relation`. */
  async client(
    identity: FileTlsIdentity,
    relation: string,
    url: string,
    log: Log = silentLog,
  ): Promise<MqttClient> {
    const client = new MqttClient(
      { clock: new SystemClock(), random: new SystemRandom(), log },
      {
        ...mqttClientDefaults,
        url,
        neighbour: { identity, relation, packetBytesMax: neighbourListenerDefaults.packetBytesMax },
        reconnect: { initialMs: 10, maxMs: 100, attemptsMax: Number.POSITIVE_INFINITY },
      },
    );
    await client.start();
    this.onClose(() => client.stop());
    return client;
  }
}
