import type { Cancel } from '../../common/runtime/clock.ts';
import { OperatingError } from '../../common/runtime/operating-error.ts';
import type { Service } from '../../common/runtime/service.ts';

export type MqttErrorCode =
  | 'mqtt-not-connected'
  | 'mqtt-publish-failed'
  | 'mqtt-subscribe-failed'
  | 'mqtt-listen-failed';

/** The transport could not do what was asked; nothing that matters is lost, as logs have every frame. */
export class MqttError extends OperatingError<MqttErrorCode> {
  override readonly name = 'MqttError';
}

/** 0: at most once. 1: at least once as far as the broker. 2 differs between brokers and is not used. */
export type QualityOfService = 0 | 1;

/** Must not throw. `payload` is valid during the call and afterwards. */
export type MessageHandler = (topic: string, payload: Uint8Array) => void;

/**
 * What we use of MQTT: 3.1.1 (OASIS), QoS 0 and 1, clean sessions, nothing retained. It may lose, repeat and after a
 * reconnect reorder messages; users detect that by themselves.
 */
export interface MqttTransport extends Service {
  readonly isConnected: boolean;
  /** Why there is no connection, for people; undefined while there is one, and where nobody is dialled. */
  readonly failure?: string | undefined;
  /**
   * Resolves once the message has left: QoS 0 written to the sockets, QoS 1 acknowledged by the broker. Waiting for it
   * before the next publish is the flow control.
   * @throws MqttError `mqtt-not-connected`, `mqtt-publish-failed`; both retryable.
   */
  publish(topic: string, payload: Uint8Array, qos: QualityOfService): Promise<void>;
  /**
   * Delivers messages whose topic matches `filter`, now and after every reconnect, until cancelled. Resolves when the
   * subscription is in force, or at once while there is no connection.
   * @throws MqttError `mqtt-subscribe-failed` when the broker refuses.
   */
  subscribe(filter: string, qos: QualityOfService, handler: MessageHandler): Promise<Cancel>;
  /** Whether a client of ours reads `topic` now. Absent where that can't be known, as the broker is elsewhere. */
  hasReader?(topic: string): boolean;
  /** Calls `listener` whenever the connection comes (subscriptions in force) or goes. */
  onConnection(listener: (isConnected: boolean) => void): Cancel;
}
